//! Why a plugin does not load, in words that name the cure.
//!
//! Each message names the file, and says what to do. Next: `inspect`, which finds some of these.

use std::fmt;
use std::path::PathBuf;

/// Why a file cannot be the plugin of its signal type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("plugin {path:?} cannot be read: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("plugin {path:?} has digest {found:?}, but {wanted:?} is configured: restore the file, or change \"digest\"")]
    Digest { path: PathBuf, found: String, wanted: String },
    #[error("plugin {path:?} is a core module, not a component: run `signalbus plugin build` in its project to make a component")]
    CoreModule { path: PathBuf },
    #[error("plugin {path:?} is not a WebAssembly component: name the output of a build for wasm32-wasip2")]
    NotAComponent { path: PathBuf },
    #[error(
        "plugin {path:?} exports {export:?}, but this relay speaks signalbus:plugin 0.1.x: build it with that version of the WIT package"
    )]
    UnknownVersion { path: PathBuf, export: String },
    #[error(
        "plugin {path:?} exports none of \"signalbus:plugin/sender\", \"bulk-sender\" and \"ordered-sender\": build it for one of the worlds \"sender-plugin\", \"bulk-sender-plugin\" and \"ordered-sender-plugin\""
    )]
    NoSender { path: PathBuf },
    #[error("plugin {path:?} imports {}: add these grants, or build it without these imports", Ungranted(imports))]
    Ungranted {
        path: PathBuf,
        /// Each import, and the key of the grant that would serve it.
        imports: Vec<(String, &'static str)>,
    },
    #[error("plugin {path:?} cannot use HTTP: {reason}")]
    NoHttp { path: PathBuf, reason: String },
    #[error("plugin {path:?} imports {}, which this relay does not provide: build it without them", Quoted(imports))]
    UnknownImports { path: PathBuf, imports: Vec<String> },
    #[error(
        "plugin {path:?} publishes through connection \"{connection}\", which is not granted: add it to `grants.connections`"
    )]
    NoConnection { path: PathBuf, connection: String },
    #[error("plugin {path:?} does not compile: {reason}")]
    Compile { path: PathBuf, reason: String },
    #[error("plugin {path:?} does not start: {reason}")]
    Start { path: PathBuf, reason: String },
    #[error("plugin {path:?} does not link: build it with the relay's own WIT package: {reason}")]
    Link { path: PathBuf, reason: String },
}

struct Quoted<'a>(&'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{name:?}")?;
        }
        Ok(())
    }
}

struct Ungranted<'a>(&'a [(String, &'static str)]);

impl fmt::Display for Ungranted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, grant)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{name:?} (needs {grant:?})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_grant_is_listed() {
        let error = LoadError::Ungranted {
            path: "p.wasm".into(),
            imports: vec![("wasi:http/types@0.2.4".into(), "grants.http"), ("wasi:sockets/tcp@0.2.0".into(), "grants.tcp")],
        };
        assert_eq!(
            error.to_string(),
            "plugin \"p.wasm\" imports \"wasi:http/types@0.2.4\" (needs \"grants.http\"), \
             \"wasi:sockets/tcp@0.2.0\" (needs \"grants.tcp\"): add these grants, or build it without these imports"
        );
    }
}
