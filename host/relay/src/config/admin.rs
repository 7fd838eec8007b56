//! The section `[admin]`: the listener for health, metrics, and changes to a running relay.
//!
//! Without a token, nobody but this machine may reach it. Next: `admin`, which serves it.

use std::net::SocketAddr;

use super::reader::{Faults, Section};

/// The admin listener: health, metrics, and changes to a running relay.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// Address to listen on; without it, there is no listener.
    pub listen: Option<SocketAddr>,
    /// Required by every request that changes something.
    pub token: Option<String>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Admin").field("listen", &self.listen).finish_non_exhaustive()
    }
}

pub(super) fn admin(root: &Section<'_>, faults: &mut Faults<'_>) -> Admin {
    let Some(section) = root.section("admin", faults) else { return Admin::default() };
    section.refuse_unknown(&["listen", "token"], faults);
    let token = section.string("token", faults);
    if token.as_deref() == Some("") {
        faults.add(section.place("token"), "`admin.token` is empty; set a secret or remove the key");
    }
    let Some(text) = section.string("listen", faults) else { return Admin { listen: None, token } };
    let listen = text.parse::<SocketAddr>().ok();
    match listen {
        None => faults.add(
            section.place("listen"),
            format!("`admin.listen`: invalid address \"{text}\"; write an IP address and a port, as in \"127.0.0.1:9464\""),
        ),
        Some(address) if !address.ip().is_loopback() && token.is_none() => {
            faults.add(
                section.place("listen"),
                format!("`admin.listen`: {address} is not a loopback address, so `admin.token` is required"),
            );
        }
        Some(_) => {}
    }
    Admin { listen, token }
}
