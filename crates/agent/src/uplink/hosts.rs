//! Hosts: which names and ports may be called at all (`correctness.md` k 6).
//!
//! Promises: the registry typed by hand and what the customer lists beside it; an answer from outside adds none.
//! Never: resolves a name; that is `web`'s.

use protocol::{Code, Error, Result};
use reqwest::Url;

/// The port of https; any other one has to be named.
const HTTPS: u16 = 443;

/// The allow-list of one agent.
#[derive(Clone, Debug)]
pub(super) struct Hosts(Vec<Rule>);

/// A host with the names below it, or an address; without port, 443.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    host: String,
    port: Option<u16>,
}

impl Hosts {
    /// `registry` as typed, `listed` as in `cloud.hosts`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the entry that is wrong.
    pub(super) fn new(registry: &str, listed: &[String]) -> Result<Self> {
        let mut rules = Vec::new();
        // A registry that is no URL is told with its own words when it is called.
        if let Ok(url) = Url::parse(registry)
            && let Some(host) = url.host_str()
        {
            rules.push(Rule { host: host.to_owned(), port: None });
            rules.push(Rule { host: host.to_owned(), port: url.port_or_known_default() });
        }
        for entry in listed {
            rules.push(rule(entry)?);
        }
        Ok(Self(rules))
    }

    /// Refuses a host that is not on the list, and a port; `any_port` = a closed network or one machine, where ports
    /// are free.
    pub(super) fn check(&self, host: &str, port: u16, any_port: bool) -> Result<()> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let mut known = self.0.iter().filter(|rule| rule.covers(&host)).peekable();
        if known.peek().is_none() {
            let words = format!("host {host} is neither the registry's nor listed in cloud.hosts");
            return Err(Error::new(Code::AddressRefused, words));
        }
        if any_port || known.any(|rule| rule.port.unwrap_or(HTTPS) == port) {
            return Ok(());
        }
        let words = format!("port {port} of {host} is not 443 nor listed in cloud.hosts");
        Err(Error::new(Code::AddressRefused, words))
    }
}

impl Rule {
    fn covers(&self, host: &str) -> bool {
        let below = || host.strip_suffix(self.host.as_str()).is_some_and(|sub| sub.ends_with('.'));
        // Nothing stands below an address written as numbers.
        let address = self.host.starts_with('[') || self.host.parse::<std::net::IpAddr>().is_ok();
        host == self.host || (!address && below())
    }
}

fn rule(entry: &str) -> Result<Rule> {
    let wrong = || {
        let words = format!("cloud.hosts: `{entry}` is not a host name or host:port");
        Error::new(Code::ConfigInvalid, words)
    };
    let plain = !entry.is_empty() && !entry.contains(['/', '@', '*', '?', '#', ' ', '\\']);
    let url = Url::parse(&format!("https://{entry}")).ok().filter(|_| plain).ok_or_else(wrong)?;
    let host = url.host_str().map(str::to_owned).ok_or_else(wrong)?;
    Ok(Rule { host: host.trim_end_matches('.').to_owned(), port: url.port() })
}

/// Refuses entries that are no hosts, before anything starts.
///
/// # Errors
/// `CONFIG_INVALID` with the entry that is wrong.
pub(crate) fn check_list(listed: &[String]) -> Result<()> {
    listed.iter().try_for_each(|entry| rule(entry).map(drop))
}

/// Entries of a list at or below which none of those hosts lies, as host and port.
pub(super) fn unnamed(listed: &[String], named: &[String]) -> Vec<(String, u16)> {
    let rules = listed.iter().filter_map(|entry| rule(entry).ok());
    rules
        .filter(|rule| !named.iter().any(|host| rule.covers(host)))
        .map(|rule| (rule.host, rule.port.unwrap_or(HTTPS)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listed: &[&str]) -> Hosts {
        let listed: Vec<String> = listed.iter().map(|host| (*host).to_owned()).collect();
        Hosts::new("https://registry.malote.example:8443/api", &listed).unwrap()
    }

    #[test]
    fn the_registry_and_what_stands_below_it_may_be_called_and_nothing_else() {
        let hosts = hosts(&[]);
        for (host, port) in [
            ("registry.malote.example", 443),
            ("REGISTRY.malote.example", 8443),
            ("grpc.registry.malote.example", 443),
            ("registry.malote.example.", 443),
        ] {
            hosts.check(host, port, false).unwrap();
        }
        for (host, port) in [
            ("malote.example", 443),
            ("evilregistry.malote.example", 443),
            ("registry.malote.example.evil.example", 443),
            ("registry.malote.example", 22),
            ("8.8.8.8", 443),
        ] {
            assert_eq!(
                hosts.check(host, port, false).unwrap_err().code,
                Code::AddressRefused,
                "{host}"
            );
        }
    }

    #[test]
    fn listed_hosts_bring_the_names_below_them_and_their_port() {
        let hosts = hosts(&["carol.ai", "grpc.example:7481", "10.0.0.7:7481", "[::1]:9"]);
        hosts.check("clube.carol.ai", 443, false).unwrap();
        hosts.check("grpc.example", 7481, false).unwrap();
        hosts.check("10.0.0.7", 7481, false).unwrap();
        hosts.check("[::1]", 9, false).unwrap();
        assert!(hosts.check("grpc.example", 443, false).is_err());
        assert!(hosts.check("1.10.0.0.7", 7481, false).is_err());
        assert!(hosts.check("notcarol.ai", 443, false).is_err());
    }

    #[test]
    fn entries_that_nobody_named_are_those_with_no_host_at_or_below_them() {
        let listed = ["carol.ai", "grpc.example:7481", "10.0.0.7"].map(str::to_owned);
        let named = ["clube.carol.ai", "10.0.0.7"].map(str::to_owned);
        assert_eq!(unnamed(&listed, &named), [("grpc.example".to_owned(), 7481)]);
        assert_eq!(unnamed(&listed, &[]).len(), 3);
    }

    #[test]
    fn an_entry_that_is_no_host_is_refused_by_its_text() {
        for entry in ["", "*.carol.ai", "https://carol.ai", "a b", "carol.ai/x", "u@carol.ai"] {
            let error = check_list(&[entry.to_owned()]).unwrap_err();
            assert_eq!(error.code, Code::ConfigInvalid);
            assert!(error.message.contains(&format!("`{entry}`")), "{error}");
        }
    }
}
