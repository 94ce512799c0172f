//! Where the server is.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `http://host:8123`.
    pub(super) origin: String,
    /// The same with the database: for people.
    pub(super) shown: String,
    pub(super) database: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            let message = format!(
                "the URL of ClickHouse {why}: it must be http://user:password@host:8123/database"
            );
            Error::new(ErrorKind::Config, message)
        };
        let url = Url::parse(text).map_err(|_| refused("is malformed"))?;
        match url.scheme() {
            "http" | "https" => {}
            "tcp" | "clickhouse" | "native" => {
                return Err(refused("is that of the native protocol (port 9000)"));
            }
            _ => return Err(refused("has another scheme")),
        }
        let host =
            url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refused("has no host"))?;
        let default = if url.scheme() == "https" { 8443 } else { 8123 };
        let port = url.port().unwrap_or(default);
        let decoded = |part: &str| {
            let part = percent_decode_str(part).decode_utf8().map_err(|_| refused("is no text"))?;
            Ok::<_, Error>(part.into_owned())
        };
        let database = decoded(url.path().trim_matches('/'))?;
        let database = if database.is_empty() { "default".to_owned() } else { database };
        let sane = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        if database.len() > 63 || !database.chars().all(sane) {
            return Err(refused("names a database that can't be one"));
        }
        let origin = format!("{}://{host}:{port}", url.scheme());
        Ok(Self {
            shown: format!("{origin}/{database}"),
            origin,
            database,
            user: Some(decoded(url.username())?).filter(|user| !user.is_empty()),
            password: url.password().map(decoded).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_passwords_not_shown() {
        let full = Address::parse("https://me:p%40ss@ch.example:9/shop").unwrap();
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("me"), Some("p@ss")));
        assert_eq!(full.shown, "https://ch.example:9/shop");
        let short = Address::parse("http://localhost").unwrap();
        assert_eq!(short.shown, "http://localhost:8123/default");
        assert_eq!((short.user, short.password), (None, None));
        for bad in ["tcp://me:secret@localhost:9000/x", "localhost:8123", "http://h/a`b", "http://"]
        {
            let error = Address::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
