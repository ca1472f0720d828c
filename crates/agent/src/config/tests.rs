use secrecy::ExposeSecret as _;

use super::*;

pub(crate) fn read(text: &str) -> Result<AgentConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    runtime::config::load_from(Some(&path), PREFIX, BTreeMap::new())
}

pub(crate) const FULL: &str = r#"
data = "here"
allow = ["FLAN"]
[cloud]
registry = "https://malote.example"
client_id = "me"
client_secret = "canary-secret"
[source]
url = "postgres://erp:canary-password@db/erp?password=canary-too"
profile = "rm"
[capture]
duty_percent = 100
[tables.FLAN]
key = ["CODCOLIGADA", "IDLAN"]
stamp = "RECMODIFIEDON"
types = { VALOR = "decimal" }
deletes = "always"
soft_delete = { column = "D", value = "*" }
exclude = ["OBS"]
mask = { CGC = "hash", FONE = "last", MAIL = "null" }
"#;

#[test]
fn a_file_is_read_and_its_dump_shows_no_secret_and_reads_back() {
    let config = read(FULL).unwrap();
    config.validate().unwrap();
    let dump = config.dump().unwrap();
    assert!(!dump.contains("canary"), "{dump}");
    assert!(!format!("{config:?}").contains("canary"));
    let again = read(&dump).unwrap();
    assert_eq!((again.capture, again.tables), (config.capture, config.tables));
}

#[test]
fn a_heading_within_a_text_of_several_lines_gets_no_comment() {
    let config = read("[cloud]\nclient_id = \"a\\n[cloud]\\nb\"").unwrap();
    let dump = config.dump().unwrap();
    let again = read(&dump).unwrap();
    assert_eq!(again.cloud.client_id, "a\n[cloud]\nb", "{dump}");
    assert_eq!(again.dump().unwrap(), dump);
}

#[test]
fn a_dump_names_every_key_there_is_also_those_that_are_not_set() {
    let dump = AgentConfig::default().dump().unwrap();
    for section in ["cloud", "source", "capture", "admin", "log", "mask", "history"] {
        let refused = read(&format!("[{section}]\nnope = 1")).unwrap_err().message;
        let (_, keys) = refused.split_once("expected").unwrap();
        let body = dump.split(&format!("[{section}]\n")).nth(1).unwrap();
        let body = body.split("\n[").next().unwrap();
        for key in keys.split('`').skip(1).step_by(2) {
            let line = |line: &str| {
                line.starts_with(&format!("{key} = ")) || line == format!("# {key} is not set")
            };
            assert!(body.lines().any(line), "{section}.{key} in:\n{dump}");
        }
    }
    assert!(dump.starts_with("# allow is not set\n"), "{dump}");
    assert!(!read(FULL).unwrap().dump().unwrap().contains("allow is not set"));
}

#[test]
fn two_spellings_of_one_name_an_unknown_type_and_a_mistyped_level_are_refused() {
    for (text, words) in [
        ("[tables.FCFO]\nexclude = ['NOME']\n[tables.fcfo]\nmask = { CGC = 'hash' }", "one name"),
        ("[tables.T]\nmask = { CGC = 'hash', cgc = 'null' }", "one name"),
    ] {
        let refused = read(text).unwrap_err();
        assert_eq!(refused.code, Code::ConfigInvalid);
        assert!(refused.message.contains(words), "{refused}");
    }
    for (text, words) in [
        ("[tables.T]\ntypes = { V = 'inteiro' }", "tables.T.types.V: \"inteiro\" is no type"),
        ("[log]\nlevel = 'loud'", "log.level: \"loud\" is no level"),
        ("[log]\nlevel = 'inof,server=debgu'", "log.level: \"inof\" is no level"),
        ("[cloud]\nregistry = '127.0.0.1:7480'", "cloud.registry: must begin with https://"),
        ("[cloud]\nregistry = 'ftp://x/'", "cloud.registry: must begin with https://"),
    ] {
        let refused = read(text).unwrap().validate_given().unwrap_err();
        assert!(refused.message.starts_with(words), "{refused}");
    }
    let fine = "[log]\nlevel = 'warn,agent=DEBUG'\n[tables.T]\ntypes = { V = 'Decimal', W = 'string;enc=b64' }";
    read(fine).unwrap().validate_given().unwrap();
}

#[test]
fn a_password_that_could_be_taken_for_an_address_is_refused_and_never_shown() {
    for password in ["T0p@W0rd", "s3k@r3t/1", "hu5h?1", "a/b", "x#y", "a@b@c"] {
        let mut config = AgentConfig::default();
        config.source.url = format!("postgres://malote:{password}@127.0.0.1:5432/erp").into();
        let refused = config.validate_given().unwrap_err();
        assert!(refused.message.starts_with("source.url: "), "{refused}");
        let shown = format!("{refused}{}{config:?}", config.dump().unwrap());
        for part in password.split(['@', '/', '?', '#']).filter(|part| part.len() > 1) {
            assert!(!shown.contains(part), "{part} in {shown}");
        }
        assert!(shown.contains("postgres://malote:[redacted]@127.0.0.1:5432/erp"), "{shown}");
    }
    let mut config = AgentConfig::default();
    config.source.url = "postgres://malote:a%40b@[::1]:5432/erp?sslmode=require".to_owned().into();
    config.validate_given().unwrap();
}

#[test]
fn the_local_list_and_the_declarations_of_a_table_hold() {
    let config = read(FULL).unwrap();
    let (flan, other) = ("flan".parse().unwrap(), "TMOV".parse().unwrap());
    assert!(config.allows(&flan) && !config.allows(&other));
    assert!(AgentConfig::default().allows(&other));
    assert_eq!((config.deletes(&flan), config.deletes(&other)), (Deletes::Always, Deletes::Capped));
    let spec = config.spec(&flan);
    assert_eq!(spec.key.unwrap().len(), 2);
    assert_eq!(spec.soft_delete.unwrap().1, "*");
    let masks: Vec<String> = spec.disclosure.masks.iter().map(|(_, mask)| mask.rule()).collect();
    assert_eq!(masks, ["hash", "last:4", "null"]);
    assert_eq!(spec.disclosure.exclude.len(), 1);
    assert_eq!(config.erp().unwrap().as_str(), "RM");
}

#[test]
fn each_profile_but_the_generic_one_has_a_name_on_the_wire() {
    let erp = |profile: &str| {
        let config = read(&format!("[source]\nurl = 'sqlite:x'\nprofile = '{profile}'")).unwrap();
        config.erp().map(|erp| erp.to_string()).map_err(|error| error.code)
    };
    for (profile, name) in
        [("rm", "RM"), ("protheus", "PROTHEUS"), ("datasul", "DATASUL"), ("logix", "LOGIX")]
    {
        assert_eq!(erp(profile).as_deref(), Ok(name));
    }
    assert_eq!(erp("generic"), Err(Code::ConfigInvalid));
}

#[test]
fn a_secret_comes_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, " s3cret\n").unwrap();
    let cloud = CloudConfig { client_secret_file: Some(path), ..CloudConfig::default() };
    assert_eq!(cloud.secret().unwrap().expose_secret(), "s3cret");
    assert_eq!(CloudConfig::default().secret().unwrap_err().code, Code::ConfigInvalid);
}

#[test]
fn sealed_secrets_are_opened_for_use_and_a_dump_shows_their_placeholders() {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::of(home.path());
    let now = runtime::clock::Wall(0);
    vault.set(&"erp".parse().unwrap(), &"canary/1".into(), now).unwrap();
    vault.set(&"cloud".parse().unwrap(), &"canary 2".into(), now).unwrap();
    let text = FULL
        .replace("canary-secret", "{sealed:cloud}")
        .replace("canary-password", "{sealed:erp}")
        .replace("?password=canary-too", "");
    let mut config = read(&text).unwrap();
    config.data = home.path().to_owned();
    let written = config.dump().unwrap();
    config.unseal().unwrap();
    assert_eq!(config.source.url.expose(), "postgres://erp:canary%2F1@db/erp");
    assert_eq!(config.cloud.secret().unwrap().expose_secret(), "canary 2");
    let dump = config.dump().unwrap();
    assert_eq!(dump, written);
    assert!(dump.contains("erp:{sealed:erp}@db") && dump.contains("\"{sealed:cloud}\""), "{dump}");
    assert!(!dump.contains("canary") && !format!("{config:?}").contains("canary"));
    vault.remove(&"cloud".parse().unwrap()).unwrap();
    let mut config = read(&text).unwrap();
    config.data = home.path().to_owned();
    config.unseal_source().unwrap();
    let refused = config.unseal().unwrap_err();
    assert_eq!(refused.code, Code::ConfigInvalid);
    assert!(refused.message.starts_with("cloud.client_secret: no secret cloud"), "{refused}");
}
