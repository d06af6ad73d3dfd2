//! Addresses: as they are seen from others, as they are shown, and as they are put into others.

use http::Uri;

use super::RequestError;

/// `location` as seen from `base`.
pub(super) fn join(base: &Uri, location: &str) -> Result<Uri, RequestError> {
    let fail = || RequestError::Address(location.chars().take(256).collect());
    let (scheme, authority) = (base.scheme_str().unwrap_or("http"), base.authority().ok_or_else(fail)?);
    let text = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let (dir, _) = base.path().rsplit_once('/').unwrap_or_default();
        format!("{scheme}://{authority}{dir}/{location}")
    };
    text.split('#').next().unwrap_or_default().parse().map_err(|_| fail())
}

/// `uri` without its query, which may hold a signature, and without anybody's password.
pub(super) fn shown(uri: &Uri) -> String {
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{}://{host}{}", uri.scheme_str().unwrap_or("http"), uri.path())
}

/// `text` for a query: everything but unreserved characters is escaped.
pub(super) fn encoded(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => whole.push(byte as char),
            _ => whole.push_str(&format!("%{byte:02X}")),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_seen_from_its_page() {
        let base: Uri = "https://r.example/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (location, wanted) in [
            ("/v2/b?c=d", "https://r.example/v2/b?c=d"),
            ("id?c=d", "https://r.example/v2/a/blobs/uploads/id?c=d"),
            ("//s.example/x", "https://s.example/x"),
            ("http://t.example/x#y", "http://t.example/x"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        let url: Uri = "https://u:p@s.example/x?sig=secret".parse().unwrap();
        assert_eq!(shown(&url), "https://s.example/x");
    }
}
