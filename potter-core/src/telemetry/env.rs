//! What the environment asks for: a plan, made without touching anything.

use tracing_subscriber::filter::LevelFilter;

use crate::error::{Error, ErrorKind, Result};

const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "JAEGER_ENDPOINT"];

#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) filter: String,
    pub(super) otlp: Option<Endpoint>,
}

/// Where spans go, and the variable that says so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) variable: &'static str,
    /// `host:port`.
    pub(super) host: String,
    /// With `/v1/traces` at the end.
    pub(super) url: String,
}

impl Plan {
    pub(super) fn from_env(
        level_default: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let filter = set("LOG_LEVEL").unwrap_or_else(|| level_default.to_owned());
        let otlp = ENDPOINT_VARIABLES.iter().find_map(|name| Some((*name, set(name)?)));
        let otlp = otlp.map(|(name, value)| endpoint(name, value.trim())).transpose()?;
        Ok(Self { filter: checked_filter(filter)?, otlp })
    }
}

fn checked_filter(filter: String) -> Result<String> {
    // A lone word that is no level would be taken as the name of a module: no logs at all.
    let lone = !filter.contains(['=', ',']);
    if lone && filter.trim().parse::<LevelFilter>().is_err() {
        let message = format!(
            "LOG_LEVEL={filter} is no level: use off, error, warn, info, debug or trace, \
             or directives such as info,sqlx=warn"
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(filter)
}

fn endpoint(variable: &'static str, value: &str) -> Result<Endpoint> {
    let refuse = |why: &str| {
        Err(Error::new(ErrorKind::Config, format!("{variable}={} {why}", without_secret(value))))
    };
    if cfg!(not(feature = "otlp")) {
        return refuse("is set, but this build has no feature `otlp`: build with it, or unset it");
    }
    let Some(rest) = value.strip_prefix("http://") else {
        return refuse("must begin with http:// (spans go to a collector beside the program)");
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    if host.is_empty() || host.contains('@') || host.contains(char::is_whitespace) {
        return refuse("must be http://HOST:PORT");
    }
    if path == "api/traces" {
        return refuse("is Jaeger's old protocol: use its OTLP port, http://HOST:4318");
    }
    let port_given = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !port_given && host.ends_with(|last: char| last != ']') && host.contains(':') {
        return refuse("has a port that is no number from 0 to 65535");
    }
    let host = if port_given { host.to_owned() } else { format!("{host}:4318") };
    let path = match path {
        "" => "v1/traces".to_owned(),
        path if path.ends_with("v1/traces") => path.to_owned(),
        path => format!("{path}/v1/traces"),
    };
    let url = format!("http://{host}/{path}");
    Ok(Endpoint { variable, host, url })
}

/// The URL without what stands before an `@`.
fn without_secret(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Result<Plan> {
        Plan::from_env("info", |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn an_unset_environment_means_info_and_no_export() {
        let plan = plan(&[("LOG_LEVEL", ""), ("JAEGER_ENDPOINT", " ")]).unwrap();
        assert_eq!(plan, Plan { filter: "info".into(), otlp: None });
    }

    #[test]
    fn a_level_that_is_none_is_an_error_that_names_the_variable_and_the_value() {
        let error = plan(&[("LOG_LEVEL", "verbose")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with("LOG_LEVEL=verbose is no level"), "{error}");
        assert!(plan(&[("LOG_LEVEL", "WARN")]).is_ok());
        assert!(plan(&[("LOG_LEVEL", "info,sqlx=warn")]).is_ok());
    }

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn an_endpoint_without_the_feature_is_an_error_that_names_both() {
        for name in ENDPOINT_VARIABLES {
            let error = plan(&[(name, "http://u:secret@collector:4318")]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("feature `otlp`"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn the_path_and_the_port_of_an_endpoint_are_filled_in() {
        for (value, url) in [
            ("http://c", "http://c:4318/v1/traces"),
            ("http://c:99/", "http://c:99/v1/traces"),
            ("http://[::1]:99/", "http://[::1]:99/v1/traces"),
            ("http://[::1]", "http://[::1]:4318/v1/traces"),
            ("http://c:99/in/", "http://c:99/in/v1/traces"),
            ("http://c:99/v1/traces", "http://c:99/v1/traces"),
        ] {
            let otlp = plan(&[("OTEL_EXPORTER_OTLP_ENDPOINT", value)]).unwrap().otlp.unwrap();
            assert_eq!(otlp.url, url);
        }
        for bad in ["c:4318", "https://c", "http://", "http://c:port", "http://c:1/api/traces"] {
            let error = plan(&[("JAEGER_ENDPOINT", bad)]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("JAEGER_ENDPOINT={bad}")), "{error}");
        }
    }
}
