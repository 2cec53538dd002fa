//! Needs of endpoints: a certificate, and proxies that are trusted.

use crate::config::ServiceConfig;
use crate::config::tls::TlsConfig;
use greenroom_state::address::Address;
use greenroom_state::endpoint::{Endpoint, split_kind};

impl ServiceConfig {
    /// Whether the service has a certificate, for endpoints over TLS.
    pub(super) fn has_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsConfig::has_certificate)
    }

    /// Reason why an endpoint and the trusted proxies do not fit. `None`: they do.
    pub(super) fn why_no_proxy(&self, endpoint: &Endpoint) -> Option<String> {
        let (is_proxied, is_tcp) =
            (split_kind(&endpoint.kind).0, matches!(endpoint.address, Address::Tcp(_)));
        if is_proxied && matches!(endpoint.address, Address::Udp(_)) {
            return Some("a PROXY header stands before a stream, and UDP has none".into());
        }
        if is_proxied && is_tcp && self.proxy_from.is_empty() {
            return Some("it needs `proxy_from`, the addresses of the proxies that are trusted".into());
        }
        let takes_headers = self.listen.iter().any(|e| split_kind(&e.kind).0);
        (!self.proxy_from.is_empty() && !takes_headers).then(|| {
            "its service has `proxy_from`, and no endpoint takes PROXY headers; write one as proxy+tcp://"
                .into()
        })
    }
}
