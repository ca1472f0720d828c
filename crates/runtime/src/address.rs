//! Address: whether an IP address is one of the public internet (`correctness.md` k 6).
//!
//! Promises: what leads to a private address by way of another family counts as private.
//! Never: resolves a name.

use std::net::{IpAddr, Ipv6Addr};

/// Neither loopback, link-local, private, shared, multicast nor reserved.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let special =
                a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a == 198 && (b & 0xfe) == 18);
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_documentation()
                || shared
                || special)
        }
        IpAddr::V6(ip) => match embedded(ip) {
            Some(ip) => is_public(IpAddr::V4(ip)),
            // Global unicast less documentation.
            None => (ip.segments()[0] & 0xe000) == 0x2000 && ip.segments()[..2] != [0x2001, 0x0db8],
        },
    }
}

/// IPv4 inside IPv6: mapped, NAT64 and 6to4 lead to that address.
fn embedded(ip: Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let from =
        |high: u16, low: u16| std::net::Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0x2002, _) => Some(from(b, c)),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => Some(from(g, h)),
        _ => ip.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for no in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(no.parse().unwrap()), "{no}");
        }
        for yes in ["8.8.8.8", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(yes.parse().unwrap()), "{yes}");
        }
    }
}
