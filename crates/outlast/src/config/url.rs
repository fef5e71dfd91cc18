//! A base URL, judged once.

use http::Uri;
use std::{fmt, net::IpAddr, str::FromStr};

/// An `http` or `https` URL without user, query or fragment. Its path has no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    uri: Uri,
}

impl BaseUrl {
    /// Reads and judges a URL.
    ///
    /// # Errors
    /// A clause that says what is wrong with it, for the end of "`...` is not a base URL: ".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('#') {
            return Err("it has a fragment");
        }
        match text.split_once("://") {
            Some((_, rest)) if rest.is_empty() || rest.starts_with('/') => return Err("it has no host"),
            Some(_) => {}
            None => return Err("it does not begin with http:// or https://"),
        }
        let uri = Uri::from_str(text.trim_end_matches('/')).map_err(|_| "it cannot be read as a URL")?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) | None => return Err("its scheme is neither http nor https"),
        }
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.host().is_empty() {
            return Err("it has no host");
        }
        if authority.as_str().contains('@') {
            return Err("it carries a user or password; use `api_key` or `headers`");
        }
        if authority.as_str().rsplit_once(':').is_some_and(|(host, port)| !host.ends_with(']') && !port.ends_with(']'))
            && uri.port_u16().is_none()
        {
            return Err("its port is not a number from 0 to 65535");
        }
        if uri.query().is_some() {
            return Err("it has a query");
        }
        Ok(BaseUrl { uri })
    }

    /// The URL as a whole.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The host, without port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// `host` or `host:port`, for the `host` header.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The path, without a slash at the end; `""` for the root.
    pub fn path(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// The URL with `path` (which begins with a slash) appended.
    pub fn join(&self, path: &str) -> Uri {
        let scheme = self.uri.scheme_str().unwrap_or("http");
        // A judged base and a path of our own cannot fail to parse; were it ever otherwise, the base is still a target
        // of the operator's choosing.
        format!("{scheme}://{}{}{path}", self.authority(), self.path()).parse().unwrap_or_else(|_| self.uri.clone())
    }

    /// Whether the host is this machine, by name or address.
    pub fn is_loopback(&self) -> bool {
        is_this_machine(&self.uri)
    }
}

/// Reads a whole URL that gets POSTs of ours: a webhook, a validator. It may have a query, and a secret in it, so no
/// error shows it. Private addresses are allowed as in `base_url`: the operator wrote it, and no request can name one.
///
/// # Errors
/// A clause that says what is wrong with it.
pub(super) fn endpoint(text: &str) -> Result<Uri, &'static str> {
    const FORM: &str = "it is not an http or https URL";
    let uri = Uri::from_str(text).map_err(|_| FORM)?;
    let host = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if !host {
        return Err(FORM);
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it carries a user or password, which end up in logs of others");
    }
    Ok(uri)
}

/// Whether a host is this machine, by name or address.
pub(super) fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.uri.scheme_str().unwrap_or("http"), self.authority(), self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_the_base_path() {
        for (base, joined) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
            ("http://[::1]:9000", "http://[::1]:9000/chat/completions"),
        ] {
            assert_eq!(BaseUrl::parse(base).unwrap().join("/chat/completions").to_string(), joined);
        }
    }

    #[test]
    fn what_is_not_a_base_url_is_refused_with_the_reason() {
        for (text, why) in [
            ("api.openai.com/v1", "it does not begin with http:// or https://"),
            ("ftp://x/v1", "its scheme is neither http nor https"),
            ("https://me:pw@x/v1", "it carries a user or password; use `api_key` or `headers`"),
            ("gpu1:8000/v1", "it does not begin with http:// or https://"),
            ("https://x/v1?key=1", "it has a query"),
            ("https://x/v1#a", "it has a fragment"),
            ("http://x:99999/", "its port is not a number from 0 to 65535"),
            ("http://", "it has no host"),
            ("http://a b", "it cannot be read as a URL"),
            ("", "it does not begin with http:// or https://"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for (text, loopback) in
            [("http://localhost:1", true), ("http://127.0.0.2", true), ("http://[::1]:8", true), ("http://gpu1", false)]
        {
            assert_eq!(BaseUrl::parse(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
