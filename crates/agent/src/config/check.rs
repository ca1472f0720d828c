//! Check: what is wrong in a configuration, and what is missing in it.
//!
//! Promises: a key is named; what is missing is no error by itself, what stands there and cannot work is.
//! Never: asks the cloud or the ERP database.

use jiff::tz::TimeZone;
use protocol::{
    Code, Error, Result,
    ids::ClientId,
    names::ColumnName,
    value::{ColumnType, TypeName},
};
use reqwest::Url;
use runtime::telemetry;

use super::{AgentConfig, ProfileName, secret::is_plain_address};
use crate::{
    capture::Schedule,
    uplink::{hosts, proxy::Proxy},
    verify::Timetable,
};

/// Longest span, seconds.
const LONGEST: u64 = 10 * 365 * 86_400;

fn wrong(words: impl Into<String>) -> Error {
    Error::new(Code::ConfigInvalid, words)
}

impl AgentConfig {
    /// Required keys without a value. While there are any, the agent runs and does nothing.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let cloud = &self.cloud;
        let no_secret = cloud.client_secret.as_ref().is_none_or(super::Secret::is_empty)
            && cloud.client_secret_file.is_none();
        let keys = [
            ("cloud.registry", cloud.registry.trim().is_empty()),
            ("cloud.client_id", cloud.client_id.trim().is_empty()),
            ("cloud.client_secret", no_secret),
        ];
        keys.into_iter()
            .filter_map(|(key, none)| none.then_some(key))
            .chain(self.source_missing())
            .collect()
    }

    /// As [`Self::missing`], of the part that reads the database.
    fn source_missing(&self) -> impl Iterator<Item = &'static str> + use<> {
        let source = &self.source;
        let (nameless, profile) = (source.erp.is_none(), source.profile);
        let keys = [
            ("source.url", source.url.is_empty()),
            ("source.erp", nameless && profile == ProfileName::Generic),
            (
                "source.company_group",
                profile == ProfileName::Protheus && source.company_group.is_empty(),
            ),
        ];
        keys.into_iter().filter_map(|(key, none)| none.then_some(key))
    }

    /// Refuses what cannot work, before anything is started.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the key that is missing or wrong.
    pub fn validate(&self) -> Result<()> {
        match self.missing().as_slice() {
            [] => self.validate_given(),
            keys => Err(missing(keys)),
        }
    }

    /// Refuses what stands there and cannot work, whatever is missing beside it.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the key that is wrong.
    pub fn validate_given(&self) -> Result<()> {
        hosts::check_list(&self.cloud.hosts)?;
        if !self.admin.listen.ip().is_loopback() {
            return Err(wrong("admin.listen must be a loopback address"));
        }
        if let Some(proxy) = &self.cloud.proxy {
            Proxy::read(proxy.expose())?;
        }
        let registry = self.cloud.registry.trim();
        if !registry.is_empty() {
            let url = Url::parse(registry).ok();
            let dialled = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
            if !url.as_ref().is_some_and(dialled) {
                return Err(wrong("must begin with https:// and name a host").at("cloud.registry"));
            }
        }
        let id = self.cloud.client_id.trim();
        if !id.is_empty() {
            let id: Result<ClientId> = self.cloud.client_id.parse();
            id.map_err(|error| wrong(error.message).at("cloud.client_id"))?;
        }
        self.validate_reading()
    }

    /// As [`Self::validate`], for commands that need the database alone; they need no name on the wire.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the key that is missing or wrong.
    pub fn validate_source(&self) -> Result<()> {
        let needed: Vec<_> = self.source_missing().filter(|key| *key != "source.erp").collect();
        match needed.as_slice() {
            [] => self.validate_reading(),
            keys => Err(missing(keys)),
        }
    }

    fn validate_reading(&self) -> Result<()> {
        telemetry::check(&self.log.level).map_err(|words| wrong(words).at("log.level"))?;
        if !is_plain_address(self.source.url.expose()) {
            let words = "user and password must not hold @ / ? or #: write %40 %2F %3F %23, or keep the password \
                         sealed (malote agent secret set) and write {sealed:NAME} in its place";
            return Err(wrong(words).at("source.url"));
        }
        if !(1..=100).contains(&self.capture.duty_percent) {
            return Err(wrong("capture.duty_percent must be 1 to 100"));
        }
        if self.capture.nice > runtime::priority::LOWEST {
            return Err(wrong("capture.nice must be 0 to 19"));
        }
        if self.capture.give_up_seconds < 5 {
            return Err(wrong("capture.give_up_seconds must be 5 or more"));
        }
        self.validate_times()?;
        Schedule::of(&self.capture)?;
        Timetable::of(self)?;
        for (table, config) in &self.tables {
            if config.stamp_none && config.stamp.is_some() {
                return Err(wrong(format!(
                    "tables.{table}: stamp and stamp_none exclude each other"
                )));
            }
            let masked = |name: &&ColumnName| config.mask.contains_key(*name);
            if let Some(name) = config.exclude.iter().find(masked) {
                return Err(wrong(format!("tables.{table}: {name} is both left out and masked")));
            }
            if config.key.as_ref().is_some_and(Vec::is_empty) {
                return Err(wrong(format!("tables.{table}.key is empty")));
            }
            for (name, text) in &config.types {
                if !TypeName::is_known(text) {
                    let known = ColumnType::ALL.map(ColumnType::as_str).join(", ");
                    let words = format!("{text:?} is no type; there are {known}");
                    return Err(wrong(words).at(format_args!("tables.{table}.types.{name}")));
                }
            }
        }
        Ok(())
    }

    /// Spans that can be waited for, and a zone that is known.
    fn validate_times(&self) -> Result<()> {
        let capture = &self.capture;
        let spans = [
            ("capture.cycle_seconds", capture.cycle_seconds),
            ("capture.key_scan_seconds", capture.key_scan_seconds),
            ("capture.compare_seconds", capture.compare_seconds),
            ("capture.give_up_seconds", capture.give_up_seconds),
            ("source.overlap_seconds", self.source.overlap_seconds.unwrap_or_default()),
        ];
        let of_tables = self.tables.iter().filter_map(|(table, config)| {
            Some((format!("tables.{table}.allowance_seconds"), config.allowance_seconds?))
        });
        let mut spans =
            spans.map(|(key, span)| (key.to_owned(), span)).into_iter().chain(of_tables);
        if let Some((key, _)) = spans.find(|(_, span)| *span > LONGEST) {
            return Err(wrong(format!("at most {LONGEST} seconds, which are ten years")).at(key));
        }
        // A database reads much as a zone that is none, some with the sign turned.
        if let Some(zone) = &self.source.stamp_zone
            && TimeZone::get(zone).is_err()
        {
            let words = format!("no time zone {zone} here: a name such as America/Sao_Paulo");
            return Err(wrong(words).at("source.stamp_zone"));
        }
        Ok(())
    }

    /// Where the configuration is to be had, as far as it tells: the registry, without what a person may have typed
    /// before its host.
    #[must_use]
    pub fn setup_link(&self) -> Option<String> {
        let mut url = Url::parse(self.cloud.registry.trim()).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        url.set_username("").and_then(|()| url.set_password(None)).ok()?;
        url.set_query(None);
        // The registry's own path answers programs; people are answered one floor up.
        if let Some(front) =
            url.path().strip_suffix("/api/v1/services").map(|head| format!("{head}/"))
        {
            url.set_path(&front);
        }
        Some(url.into())
    }
}

fn missing(keys: &[&str]) -> Error {
    let keys = keys.join(", ");
    let verb = if keys.contains(',') { "are" } else { "is" };
    wrong(format!("{keys} {verb} missing"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{FULL, read},
        *,
    };

    #[test]
    fn what_cannot_work_is_refused_by_the_name_of_its_key() {
        assert!(read("typo = 1").unwrap_err().message.contains("typo"));
        let refused = |text: &str| read(text).unwrap().validate().unwrap_err().message;
        let change = |from: &str, to: &str| refused(&FULL.replace(from, to));
        assert!(change("duty_percent = 100", "duty_percent = 0").contains("duty_percent"));
        assert!(change("duty_percent = 100", "nice = 20").contains("capture.nice"));
        assert!(change("key = [", "stamp_none = true\nkey = [").contains("exclude"));
        assert!(change("\"OBS\"", "\"cgc\"").contains("both left out and masked"));
        assert!(
            read(&FULL.replace("\"last\"", "\"md5\"")).unwrap_err().message.contains("a mask is")
        );
        assert!(change("[source]", "hosts = [\"*.x\"]\n[source]").contains("cloud.hosts"));
        let open = format!("{FULL}\n[admin]\nlisten = \"0.0.0.0:1\"");
        assert!(refused(&open).contains("loopback"));
        assert!(change("\"me\"", "\"\\u0007\"").contains("cloud.client_id"));
    }

    #[test]
    fn a_zone_that_nobody_knows_and_a_span_that_nobody_can_wait_for_are_refused() {
        let source = |line: &str| {
            let text = FULL.replace("[source]", &format!("[source]\n{line}"));
            read(&text).unwrap().validate().map_err(|error| error.to_string())
        };
        assert_eq!(source("stamp_zone = 'America/Sao_Paulo'"), Ok(()));
        for zone in ["UTC-3", "banana", "America/Sao_Paolo", ""] {
            let refused = source(&format!("stamp_zone = '{zone}'")).unwrap_err();
            assert!(refused.contains("source.stamp_zone"), "{refused}");
        }
        let refused = source("overlap_seconds = 9223372036854775807").unwrap_err();
        assert!(refused.contains("source.overlap_seconds"), "{refused}");
        let text = FULL.replace("[capture]", "[capture]\ncycle_seconds = 9223372036854775807");
        let refused = read(&text).unwrap().validate().unwrap_err().to_string();
        assert!(refused.contains("capture.cycle_seconds"), "{refused}");
    }

    #[test]
    fn each_required_key_is_missed_by_its_name_and_what_is_given_is_judged_all_the_same() {
        let missing = |text: &str| read(text).unwrap().missing();
        assert!(missing(FULL).is_empty());
        let all = [
            "cloud.registry",
            "cloud.client_id",
            "cloud.client_secret",
            "source.url",
            "source.erp",
        ];
        assert_eq!(missing(""), all);
        let without = |key: &str, to: &str| missing(&FULL.replace(key, to));
        assert_eq!(without("client_id = \"me\"", ""), ["cloud.client_id"]);
        assert_eq!(without("\"canary-secret\"", "\"\""), ["cloud.client_secret"]);
        assert!(
            without("client_secret = \"canary-secret\"", "client_secret_file = 'x'").is_empty()
        );
        assert_eq!(without("profile = \"rm\"", "profile = \"protheus\""), ["source.company_group"]);
        let error = read("").unwrap().validate().unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid);
        assert!(error.message.ends_with("source.url, source.erp are missing"), "{error}");
        let error = read("").unwrap().validate_source().unwrap_err();
        assert_eq!(error.message, "source.url is missing");
        let wrong = read("[capture]\nduty_percent = 0").unwrap().validate_given().unwrap_err();
        assert!(wrong.message.contains("duty_percent"));
    }

    #[test]
    fn the_link_is_the_registry_without_what_stands_before_its_host() {
        let link = |registry: &str| {
            let mut config = AgentConfig::default();
            config.cloud.registry = registry.to_owned();
            config.setup_link()
        };
        assert_eq!(
            link(" https://u:canary@malote.example/api?key=canary").as_deref(),
            Some("https://malote.example/api")
        );
        let services = "http://127.0.0.1:7480/api/v1/services";
        assert_eq!(link(services).as_deref(), Some("http://127.0.0.1:7480/"));
        for none in ["", "malote.example", "file:///x", "x"] {
            assert_eq!(link(none), None, "{none}");
        }
    }
}
