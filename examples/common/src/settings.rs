//! Settings from the environment. A malformed one is an error, never a silent default.

use std::fmt::Display;
use std::str::FromStr;

use potter_core::{Error, ErrorKind, Result};

/// The value of the first of `names` that is set and not empty, with the name that it had.
pub fn env_text(names: &[&'static str]) -> Option<(&'static str, String)> {
    first_set(names, |name| std::env::var(name).ok())
}

/// The same, read as a `T`; `default` when none is set.
///
/// # Errors
/// `Config` naming the variable and its value.
pub fn env_parsed<T: FromStr>(names: &[&'static str], default: T) -> Result<T>
where
    T::Err: Display,
{
    parsed(env_text(names), default)
}

fn first_set(
    names: &[&'static str],
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| {
        let value = variable(name)?.trim().to_owned();
        (!value.is_empty()).then_some((*name, value))
    })
}

fn parsed<T: FromStr>(set: Option<(&'static str, String)>, default: T) -> Result<T>
where
    T::Err: Display,
{
    let Some((name, value)) = set else { return Ok(default) };
    value.parse().map_err(|why| {
        Error::new(ErrorKind::Config, format!("{name}={value} can't be used: {why}"))
    })
}

/// What every service reads from its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// `HOST`, default 127.0.0.1.
    pub host: String,
    /// `PORT` (alias `SERVER_PORT`), default the program's; 0 is any free port.
    pub port: u16,
    /// `DATABASE_URL` (alias `POSTGRES_URL`), default a SQLite file under `./data/`.
    pub database_url: String,
    /// No URL was set: the database is the service's own file.
    pub database_is_default: bool,
}

impl Settings {
    /// Reads the environment of `service`.
    ///
    /// # Errors
    /// `Config` naming the variable and its value (without a password).
    pub fn from_env(service: &str, port_default: u16) -> Result<Self> {
        Self::read(service, port_default, |name| std::env::var(name).ok())
    }

    fn read(
        service: &str,
        port_default: u16,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let set = |names: &[&'static str]| first_set(names, &variable);
        let host = set(&["HOST"]).map_or_else(|| "127.0.0.1".to_owned(), |(_, host)| host);
        if host.contains(|c: char| c.is_whitespace() || c == '/') {
            let message = format!("HOST={host} can't be used: it must be a name or an address");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let port = parsed(set(&["PORT", "SERVER_PORT"]), port_default)?;
        let database = set(&["DATABASE_URL", "POSTGRES_URL"]);
        let database_is_default = database.is_none();
        let database_url = match database {
            None => format!("sqlite://data/{service}.db"),
            Some((name, url)) => {
                if !["postgres://", "postgresql://", "sqlite:"].iter().any(|s| url.starts_with(s)) {
                    let url = without_password(&url);
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!(
                            "{name}={url} can't be used: it must be postgres://… or sqlite://…"
                        ),
                    ));
                }
                url
            }
        };
        Ok(Self { host, port, database_url, database_is_default })
    }

    /// The same with another database in the place of `DATABASE_URL`: what the program asked for,
    /// in a variable of its own.
    #[must_use]
    pub fn with_database(mut self, url: impl Into<String>) -> Self {
        self.database_url = url.into();
        self.database_is_default = false;
        self
    }

    /// The database's URL without its password, for logs.
    pub fn database_shown(&self) -> String {
        without_password(&self.database_url)
    }
}

fn without_password(url: &str) -> String {
    // What follows a `?` can hold a password too.
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::read("shop", 8080, |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_is_enough() {
        let settings = read(&[("PORT", "")]).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("127.0.0.1", 8080));
        assert_eq!(settings.database_url, "sqlite://data/shop.db");
        assert!(settings.database_is_default);
    }

    #[test]
    fn aliases_are_taken_after_the_names_themselves() {
        let settings = read(&[("SERVER_PORT", "1"), ("POSTGRES_URL", "postgres://a/b")]).unwrap();
        assert_eq!((settings.port, settings.database_url.as_str()), (1, "postgres://a/b"));
        assert_eq!(read(&[("SERVER_PORT", "1"), ("PORT", "2")]).unwrap().port, 2);
    }

    #[test]
    fn a_malformed_value_is_named_with_its_variable_and_without_its_password() {
        for bad in ["http", "-1", "65536"] {
            let error = read(&[("SERVER_PORT", bad)]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("SERVER_PORT={bad} ")), "{error}");
        }
        let error = read(&[("DATABASE_URL", "mysql://me:secret@db/x?password=secret")]);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("DATABASE_URL=mysql://***@db/x "), "{error}");
        assert!(read(&[("HOST", "http://x")]).unwrap_err().to_string().starts_with("HOST="));
    }
}
