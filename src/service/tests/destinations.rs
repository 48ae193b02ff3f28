use peat_gateway_state::record::SinkKind;

use super::super::destination::{check, is_public};
use super::*;

fn webhook(url: &str) -> SinkKind {
    SinkKind::Webhook { url: url.to_owned() }
}

#[test]
fn webhooks_may_not_name_the_gateways_own_surroundings() {
    let allowed = Settings { webhook_allow_private: true };
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://localhost:8080/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[ff02::1]/",
    ] {
        let error = check(&webhook(url), &Settings::default()).unwrap_err();
        assert_eq!(error.pointer.as_deref(), Some("/sink_type/Webhook/url"), "{url}");
        assert!(check(&webhook(url), &allowed).is_ok(), "{url}");
    }
    for url in ["https://example.com/a?b=c", "http://93.184.216.34:8080/", "http://[2606:4700::1]/"]
    {
        assert!(check(&webhook(url), &Settings::default()).is_ok(), "{url}");
    }
}

#[test]
fn malformed_destinations_are_refused_whatever_is_allowed() {
    let nats = |url: &str, prefix: &str| SinkKind::Nats {
        url: url.to_owned(),
        subject_prefix: prefix.to_owned(),
    };
    let long = format!("https://example.com/{}", "a".repeat(2048));
    for kind in [
        webhook(""),
        webhook("example.com"),
        webhook("ftp://example.com/"),
        webhook("file:///etc/passwd"),
        webhook("https://user:password@example.com/"),
        webhook("https://example.com/#fragment"),
        webhook(&long),
        nats("http://example.com:4222", "cdc"),
        nats("nats://user:password@example.com:4222", "cdc"),
        nats("nats://example.com:4222/path", "cdc"),
        nats("", ""),
        nats("", "a..b"),
        nats("", ".a"),
        nats("", "a.*"),
        nats("", "a.>"),
        nats("", "a b"),
        SinkKind::File { name: "../escape".to_owned() },
        SinkKind::File { name: String::new() },
    ] {
        let error = check(&kind, &Settings { webhook_allow_private: true }).unwrap_err();
        assert_eq!(error.code, "invalid_sink_type", "{kind:?}");
    }
    for kind in [nats("", "cdc"), nats("tls://10.0.0.1:4222", "a.b-c_d")] {
        assert!(check(&kind, &Settings::default()).is_ok(), "{kind:?}");
    }
}

#[test]
fn special_addresses_are_not_public() {
    for address in
        ["192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "2001:db8::1", "::7f00:1"]
    {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
    for address in ["8.8.8.8", "100.128.0.1", "2a00:1450::1", "::ffff:8.8.8.8"] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
}
