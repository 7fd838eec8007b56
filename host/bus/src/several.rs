//! URLs with several servers: `scheme://user:password@host1:port,host2:port/path`.

/// Returns whether URLs with this scheme may name several servers.
pub(super) fn takes_several(scheme: &str) -> bool {
    ["kafka", "kafkas", "nats", "tls"].contains(&scheme) || scheme.ends_with("-cluster") || scheme.ends_with("-sentinel")
}

/// Checks that scheme, user and password are written once, in a URL with several servers.
///
/// # Errors
/// They are not, and would be taken for parts of others. The text shows neither.
pub(super) fn refuse_repeated(url: &str) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| takes_several(scheme)) else { return Ok(()) };
    let servers = rest.split(['?', '#']).next().unwrap_or_default();
    if servers.contains("://") {
        return Err(format!("the URL names the scheme of each server: write it once, as in {scheme}://host1,host2"));
    }
    let login = servers.rsplit_once('@').map_or("", |(login, _)| login);
    match login.find('@').is_some_and(|at| login[at..].contains(',')) {
        true => Err(format!(
            "the URL names a user for each server: write it once, as in {scheme}://user:password@host1,host2, and `@` in a \
             password as `%40`"
        )),
        false => Ok(()),
    }
}

/// Splits `scheme://host:port,host:port/` into a URL with the first server, and the other servers.
pub(super) fn first_server(url: &str) -> (String, Vec<String>) {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    let begin = url[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let mut servers = url[begin..end].split(',').map(str::to_owned);
    let first = servers.next().unwrap_or_default();
    (format!("{}{first}{}", &url[..begin], &url[end..]), servers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_several_servers() {
        let (url, others) = first_server("kafka://u:p,@a:1,b:2,[::1]:3/x?y=z,");
        assert_eq!((url.as_str(), others), ("kafka://u:p,@a:1/x?y=z,", vec!["b:2".to_owned(), "[::1]:3".to_owned()]));
        for url in ["amqp://u:p@h/%2f", "nats://h", "no url", "", "a://"] {
            assert_eq!(first_server(url), (url.to_owned(), vec![]));
        }
    }
}
