//! Configuration of `malote agent`: one file, each key also as `MALOTE_AGENT_…` in the environment.
//!
//! Promises: unknown keys are refused; a dump shows what is in force with its secrets redacted. `check` tells what is
//! wrong and what is missing, `secret` what is never printed, `vault` keeps what is sealed.
//! Never: holds a table's data, or anything the cloud may change: the customer's own word is the last one.

mod check;
pub mod secret;
pub mod vault;

use std::{
    collections::BTreeMap,
    fmt, fs,
    marker::PhantomData,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{
    Code, Coded as _, Error, Result,
    names::{ColumnName, ErpName, TableName},
    value::TypeName,
};
use runtime::telemetry::LogFormat;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use secret::Secret;
use vault::Vault;

use crate::source::{Disclosure, Mask, MaskKey, MaskRule, TableSpec};

/// Prefix of the environment's variables.
const PREFIX: &str = "MALOTE_AGENT";
/// Key of hashed columns, in the data folder.
pub(crate) const MASK_KEY_FILE: &str = "mask.key";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Folder of the journal.
    pub data: PathBuf,
    pub cloud: CloudConfig,
    pub source: SourceConfig,
    pub capture: CaptureConfig,
    pub admin: AdminConfig,
    pub log: LogConfig,
    pub mask: MaskConfig,
    pub history: HistoryConfig,
    pub verify: VerifyConfig,
    /// The only tables that may be shared, by wire name. Absent: every table the cloud asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<TableName>>,
    /// What the catalogue does not tell of a table, by wire name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once_each")]
    pub tables: BTreeMap<TableName, TableConfig>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudConfig {
    /// Address of the registry, which names every other address: `https://malote.example/…`.
    pub registry: String,
    /// Client id from the activation.
    pub client_id: String,
    /// Client secret from the activation; rather sealed (`{sealed:NAME}`), a file or the environment than here.
    pub client_secret: Option<Secret>,
    /// File that holds the client secret and nothing else.
    pub client_secret_file: Option<PathBuf>,
    /// Hosts beside the registry's that its answer may name: `host` or `host:port`, names below them included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Allows plain http and private addresses.
    pub allow_private: bool,
    /// PEM file with a further authority that TLS trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy that every call to the cloud goes through: `http://user:password@host:port`; `{sealed:NAME}` in the
    /// place of the password stands for one in the vault. Absent: none, whatever the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Secret>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// The ERP database: `postgres://user:password@host/database` or `sqlite:path`; `{sealed:NAME}` in the place of the
    /// password stands for one in the vault.
    pub url: Secret,
    /// What the tables mean: `rm`, `protheus`, `datasul`, `logix` or `generic`.
    pub profile: ProfileName,
    /// Name of the ERP on the wire; else the profile's (`RM`, `PROTHEUS`, `DATASUL`, `LOGIX`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erp: Option<ErpName>,
    /// Protheus: the company group, `01`.
    pub company_group: String,
    /// Protheus: characters of the branch code that are the company.
    pub company_characters: usize,
    /// Protheus: characters of the branch code that are the unity.
    pub unity_characters: usize,
    /// IANA zone of stamps without one; else the database's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamp_zone: Option<String>,
    /// Smallest overlap window where the safe bound cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u64>,
    /// PEM file with the authorities that TLS trusts; else the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    Rm,
    Protheus,
    Datasul,
    Logix,
    #[default]
    Generic,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// Pause between two cycles. A base load or a full batch goes on without it.
    pub cycle_seconds: u64,
    /// Times at which cycles run instead, as cron has them: `*/15 8-18 * * mon-fri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurrence: Option<String>,
    /// Hours in which base loads may be read, `19:00-06:00` or `sat,sun 00:00-24:00`. Empty: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_hours: Vec<String>,
    /// IANA zone of both; else the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How often keys are compared to find deleted rows in tables that do not mark them.
    pub key_scan_seconds: u64,
    /// Share of the time in which a base load or a full scan may use the ERP database, 1 to 100.
    pub duty_percent: u32,
    /// How far the agent steps back behind other processes of its machine, as Unix's `nice` counts: 0 to 19.
    pub nice: u8,
    /// How often every row of a table with a stamp is compared with what is known, 0 = never: finds changes that moved no
    /// stamp, or that a weak bound missed.
    pub compare_seconds: u64,
    /// Where nothing of the ERP database can be read for so long, the lease is given back, so that a second agent which
    /// can read it takes over (F41).
    pub give_up_seconds: u64,
    /// Whether found deletes are capped: `capped` asks a person above the cap, `always` never asks.
    pub deletes: Deletes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    #[default]
    Capped,
    Always,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Loopback address of the admin door. Port 0 takes a free one.
    pub listen: SocketAddr,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, or a filter such as `info,agent=debug`.
    pub level: String,
    /// `auto` (text on a terminal, else JSON), `text` or `json`.
    pub format: LogFormat,
}

/// Cleaning of the history (`GTOTVSAPPCONCEITOHST`), by itself and as the defaults of the command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Days that stay.
    pub keep_days: u32,
    /// Most rows that one cleaning removes, oldest first.
    pub clean_rows: u64,
    /// Pause between two cleanings; 0 = only by command.
    pub clean_hours: u32,
}

/// When every table is compared with what is staged of it, by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyConfig {
    /// Time of the day by `capture.zone`, `02:00`, or `off`.
    pub at: String,
    /// 1 = every day, 7 = one day of the week.
    pub every_days: u32,
    /// The begin lies up to so many minutes behind, in each agent elsewhere.
    pub spread_minutes: u32,
}

impl HistoryConfig {
    /// Pause between two cleanings.
    #[must_use]
    pub fn every(&self) -> Option<Duration> {
        (self.clean_hours > 0).then(|| Duration::from_secs(u64::from(self.clean_hours) * 3_600))
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskConfig {
    /// File with the key of hashed columns, 64 hex digits; else `mask.key` in the data folder, made at need. Agents
    /// that stand by for each other need the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// As it was read at the start.
    #[serde(skip)]
    pub key: Option<MaskKey>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// The only columns that leave the building; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnName>>,
    /// Columns that stay in the building.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<ColumnName>,
    /// Columns of which a mask leaves the building: `{ CGCCFO = "hash", TELEFONE = "last:4", EMAIL = "null" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once_each")]
    pub mask: BTreeMap<ColumnName, MaskRule>,
    /// Columns that are unique together and never NULL. All profiles but `protheus` take them where the catalogue shows
    /// no primary key; `protheus` takes them before the table's unique index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<ColumnName>>,
    /// Column that every change moves; else the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamp: Option<ColumnName>,
    /// Treat the table as one without stamp: it is scanned whole.
    pub stamp_none: bool,
    /// What the writers' clocks may err for this stamp; else the profile's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowance_seconds: Option<u64>,
    /// Column and text that mark a deleted row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_delete: Option<SoftDelete>,
    /// Types over the catalogue's: `{ VALOR = "decimal" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once_each")]
    pub types: BTreeMap<ColumnName, String>,
    /// Whether this table's found deletes are capped; else as in `[capture]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletes: Option<Deletes>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftDelete {
    /// The column.
    pub column: ColumnName,
    /// Its text in a deleted row, blanks trimmed.
    pub value: String,
}

/// Reads a section whose names are alike in any case: two spellings of one name are refused, since one of the two would
/// be dropped, and with it what it keeps in the building.
fn once_each<'de, D, K, V>(from: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    struct Once<K, V>(PhantomData<(K, V)>);
    impl<'de, K, V> de::Visitor<'de> for Once<K, V>
    where
        K: Deserialize<'de> + Ord + fmt::Display,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a section")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<K, V>()? {
                if let Some((other, _)) = all.get_key_value(&key) {
                    let words = format!("{other} and {key} are one name; keep one of the two");
                    return Err(de::Error::custom(words));
                }
                all.insert(key, value);
            }
            Ok(all)
        }
    }
    from.deserialize_map(Once(PhantomData))
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("malote-agent"),
            cloud: CloudConfig::default(),
            source: SourceConfig::default(),
            capture: CaptureConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            mask: MaskConfig::default(),
            history: HistoryConfig::default(),
            verify: VerifyConfig::default(),
            allow: None,
            tables: BTreeMap::new(),
        }
    }
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            cycle_seconds: protocol::limits::CYCLE.as_secs(),
            recurrence: None,
            load_hours: Vec::new(),
            zone: None,
            key_scan_seconds: 900,
            duty_percent: 25,
            nice: 10,
            compare_seconds: protocol::limits::COMPARE.as_secs(),
            give_up_seconds: protocol::limits::SOURCE_AWAY.as_secs(),
            deletes: Deletes::Capped,
        }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { keep_days: 30, clean_rows: 100_000, clean_hours: 1 }
    }
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self { at: "02:00".into(), every_days: 1, spread_minutes: 60 }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7490)) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

impl AgentConfig {
    /// Reads the file (if any) and the environment over it.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the key that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        runtime::config::load(file, PREFIX)
    }

    /// The name of the ERP on the wire.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where neither the configuration nor the profile gives one.
    pub fn erp(&self) -> Result<ErpName> {
        if let Some(erp) = &self.source.erp {
            return Ok(erp.clone());
        }
        match self.source.profile {
            ProfileName::Rm => "RM".parse(),
            ProfileName::Protheus => "PROTHEUS".parse(),
            ProfileName::Datasul => "DATASUL".parse(),
            ProfileName::Logix => "LOGIX".parse(),
            ProfileName::Generic => Err(Error::new(
                Code::ConfigInvalid,
                "source.erp is missing: profile generic has no name of its own",
            )),
        }
    }

    /// Whether the customer lets this table leave the house.
    #[must_use]
    pub fn allows(&self, table: &TableName) -> bool {
        self.allow.as_ref().is_none_or(|allowed| allowed.contains(table))
    }

    /// What is declared of a table.
    #[must_use]
    pub fn spec(&self, table: &TableName) -> TableSpec {
        let config = self.tables.get(table).cloned().unwrap_or_default();
        TableSpec {
            wire: table.clone(),
            key: config.key,
            stamp: config.stamp,
            no_stamp: config.stamp_none,
            soft_delete: config.soft_delete.map(|soft| (soft.column, soft.value)),
            types: config
                .types
                .into_iter()
                .map(|(name, text)| (name, TypeName::parse(&text)))
                .collect(),
            allowance: config.allowance_seconds.map(Duration::from_secs),
            disclosure: Disclosure {
                only: config.columns,
                exclude: config.exclude,
                masks: config
                    .mask
                    .into_iter()
                    .map(|(name, rule)| (name, self.mask.of(rule)))
                    .collect(),
            },
        }
    }

    /// Opens the key of the masks, where a table hashes a column.
    ///
    /// # Errors
    /// As [`MaskKey::open`].
    pub fn open_mask_key(&mut self) -> Result<()> {
        let hashes = |table: &TableConfig| table.mask.values().any(|rule| *rule == MaskRule::Hash);
        if self.tables.values().any(hashes) {
            let own = self.data.join(MASK_KEY_FILE);
            let path = self.mask.key_file.as_ref().unwrap_or(&own);
            self.mask.key = Some(MaskKey::open(path, self.mask.key_file.is_none())?);
        }
        Ok(())
    }

    /// Puts sealed secrets in the places of their placeholders.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with key, name, file and what to do.
    pub fn unseal(&mut self) -> Result<()> {
        self.unseal_source()?;
        let vault = Vault::of(&self.data);
        if let Some(proxy) = &mut self.cloud.proxy {
            let opened = proxy.opened_address(&vault);
            *proxy = opened.map_err(|error| error.at("cloud.proxy"))?;
        }
        if let Some(secret) = &mut self.cloud.client_secret {
            *secret =
                secret.opened_whole(&vault).map_err(|error| error.at("cloud.client_secret"))?;
        }
        Ok(())
    }

    /// Whether secrets are sealed in the data folder under a key that lies there as well.
    #[must_use]
    pub fn is_sealed_beside_its_key(&self) -> bool {
        Vault::of(&self.data).is_beside_its_key()
    }

    /// As [`Self::unseal`], for commands that need the database alone.
    ///
    /// # Errors
    /// As [`Self::unseal`].
    pub fn unseal_source(&mut self) -> Result<()> {
        let url = self.source.url.opened_address(&Vault::of(&self.data));
        self.source.url = url.map_err(|error| error.at("source.url"))?;
        Ok(())
    }

    /// Whether deletes found by comparison are capped for a table.
    #[must_use]
    pub fn deletes(&self, table: &TableName) -> Deletes {
        let own = self.tables.get(table).and_then(|config| config.deletes);
        own.unwrap_or(self.capture.deletes)
    }

    /// What is in force, as a file of its own; secrets are redacted.
    ///
    /// # Errors
    /// `INTERNAL` where the tree cannot be written as TOML.
    pub fn dump(&self) -> Result<String> {
        let text = toml::to_string_pretty(self);
        let text = text.coded(Code::Internal, "cannot print the configuration")?;
        Ok(with_unset(&text))
    }
}

/// Keys without a value of their own, by section; where they are not set TOML has no way to show them.
const MAY_BE_UNSET: &[(&str, &[&str])] = &[
    ("", &["allow"]),
    ("cloud", &["client_secret", "client_secret_file", "hosts", "ca_file", "proxy"]),
    ("source", &["erp", "stamp_zone", "overlap_seconds", "ca_file"]),
    ("capture", &["recurrence", "load_hours", "zone"]),
    ("mask", &["key_file"]),
];

/// The text with a comment for each key that is not set, below its section's heading.
fn with_unset(text: &str) -> String {
    let set: toml::Table = text.parse().unwrap_or_default();
    let comments = |section: &str| -> String {
        let keys = MAY_BE_UNSET.iter().find(|(name, _)| *name == section).map(|(_, keys)| *keys);
        let tree = if section.is_empty() {
            Some(&set)
        } else {
            set.get(section).and_then(toml::Value::as_table)
        };
        let unset = |key: &&str| tree.is_none_or(|tree| !tree.contains_key(*key));
        let lines = keys.unwrap_or_default().iter().copied().filter(unset);
        lines.map(|key| format!("# {key} is not set\n")).collect()
    };
    let mut out = comments("");
    // What looks like a heading within a text of several lines is none.
    let mut within: Option<&str> = None;
    for line in text.lines() {
        out.push_str(line);
        out.push('\n');
        let section = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        out.extend(section.filter(|_| within.is_none()).map(comments));
        let opens = |mark: &&str| line.matches(mark).count() % 2 == 1;
        within = match within {
            Some(mark) => Some(mark).filter(|mark| !opens(mark)),
            None => ["\"\"\"", "'''"].into_iter().find(opens),
        };
    }
    out
}

impl MaskConfig {
    fn of(&self, rule: MaskRule) -> Mask {
        match rule {
            MaskRule::Hash => Mask::Hash(self.key.clone()),
            MaskRule::Null => Mask::Null,
            MaskRule::Last(digits) => Mask::Last(digits),
        }
    }
}

impl CloudConfig {
    /// The further authority, PEM.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the file cannot be read.
    pub fn ca(&self) -> Result<Option<Vec<u8>>> {
        let read = |path: &PathBuf| {
            let words = format!("cannot read cloud.ca_file {}", path.display());
            let read = fs::read(path).coded(Code::ConfigInvalid, words)?;
            runtime::tls::with_certificate(read)
                .map_err(|error| error.at(format!("cloud.ca_file {}", path.display())))
        };
        self.ca_file.as_ref().map(read).transpose()
    }

    /// The client secret, from its file where one is named.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where there is none or the file cannot be read.
    pub fn secret(&self) -> Result<SecretString> {
        if let Some(secret) = self.client_secret.as_ref().filter(|secret| !secret.is_empty()) {
            return Ok(secret.expose().trim().to_owned().into());
        }
        let missing = || Error::new(Code::ConfigInvalid, "cloud.client_secret is missing");
        let path = self.client_secret_file.as_ref().ok_or_else(missing)?;
        let words = format!("cannot read cloud.client_secret_file {}", path.display());
        let text = fs::read_to_string(path).coded(Code::ConfigInvalid, words)?;
        let text = text.trim();
        if text.is_empty() { Err(missing()) } else { Ok(text.to_owned().into()) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
