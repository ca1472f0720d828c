use super::*;

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn seal(vault: &Vault, of: &str, value: &str) -> bool {
    vault.set(&name(of), &value.into(), Wall(0)).unwrap()
}

fn opened(vault: &Vault, of: &str) -> Result<String> {
    vault.open(&name(of)).map(|value| value.expose_secret().to_owned())
}

/// `CONFIG_INVALID` that names the secret, a file and a way out.
fn refused(vault: &Vault, of: &str, words: [&str; 2]) {
    let error = opened(vault, of).unwrap_err();
    assert_eq!(error.code, Code::ConfigInvalid);
    let folder = vault.folder.display().to_string();
    for word in [of, &folder].into_iter().chain(words) {
        assert!(error.message.contains(word), "no {word} in {error}");
    }
    assert!(!error.message.contains("canary") && !error.chain().contains("canary"));
}

#[test]
fn a_secret_is_set_listed_opened_replaced_and_removed_and_lies_nowhere_in_clear() {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::of(&home.path().join("data"));
    assert!(vault.list().unwrap().is_empty());
    assert_eq!(vault.remove(&name("erp")).unwrap_err().code, Code::NotFound);
    assert!(!vault.folder.exists(), "looking makes nothing");
    assert!(!seal(&vault, "erp", "canary-one"));
    assert!(!seal(&vault, "cloud", "canary-two"));
    assert!(seal(&vault, "erp", "canary-three"), "it took the other's place");
    assert_eq!(opened(&vault, "erp").unwrap(), "canary-three");
    assert_eq!(opened(&vault, "cloud").unwrap(), "canary-two");
    let listed = vault.list().unwrap();
    let names: Vec<&str> = listed.iter().map(|listed| listed.name.as_str()).collect();
    assert_eq!((names, listed[0].set.as_str()), (vec!["cloud", "erp"], "1970-01-01T00:00:00Z"));
    for entry in fs::read_dir(&vault.folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"), "{}", path.display());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
    vault.remove(&name("erp")).unwrap();
    refused(&vault, "erp", ["no secret erp", "malote agent secret set erp"]);
    assert_eq!(vault.remove(&name("erp")).unwrap_err().code, Code::NotFound);
    assert_eq!(opened(&vault, "cloud").unwrap(), "canary-two");
}

#[test]
fn a_missing_or_another_key_and_a_damaged_file_are_told_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::of(home.path());
    seal(&vault, "erp", "canary-one");
    seal(&vault, "two", "canary-two");
    let (key, file) = (vault.path(KEY_FILE), vault.path(FILE));
    let right = fs::read(&key).unwrap();
    let whole = fs::read_to_string(&file).unwrap();

    fs::remove_file(&key).unwrap();
    refused(&vault, "erp", [KEY_FILE, "restore the right one"]);
    let error = vault.set(&name("new"), &"canary".into(), Wall(0)).unwrap_err();
    assert!(error.code == Code::ConfigInvalid && !key.exists(), "no second key is made: {error}");
    fs::write(&key, "7".repeat(64)).unwrap();
    refused(&vault, "erp", ["another key", KEY_FILE]);
    assert!(vault.set(&name("new"), &"canary".into(), Wall(0)).is_err());
    fs::write(&key, "7").unwrap();
    refused(&vault, "erp", [KEY_FILE, "64 hex digits"]);
    fs::write(&key, &right).unwrap();
    opened(&vault, "erp").unwrap();

    // Each value belongs to its name and date.
    let mut kept = vault.read().unwrap();
    let other = kept.secrets[&name("two")].value.clone();
    kept.secrets.get_mut(&name("erp")).unwrap().value = other;
    vault.write(&kept).unwrap();
    refused(&vault, "erp", ["is damaged", "secret set erp"]);
    fs::write(&file, whole.replace("1970-", "1971-")).unwrap();
    refused(&vault, "two", ["is damaged", "secret set two"]);
    for bad in ["", "?", "AAAA"] {
        let mut kept = vault.read().unwrap();
        kept.secrets.get_mut(&name("erp")).unwrap().value = bad.to_owned();
        vault.write(&kept).unwrap();
        refused(&vault, "erp", ["is damaged", FILE]);
    }
    for bad in [&whole[..whole.len() / 2], "", "{}", "[\"canary\"]"] {
        fs::write(&file, bad).unwrap();
        let error = vault.open(&name("erp")).unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid, "{bad}");
        assert!(error.message.contains(FILE) && error.message.contains("is damaged"), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    fs::write(&file, whole.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(vault.list().unwrap_err().message.contains("version 2"));
    fs::write(&file, whole).unwrap();
    opened(&vault, "erp").unwrap();
}

#[test]
fn an_empty_vault_takes_a_new_key_and_values_and_names_are_bounded() {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::of(home.path());
    seal(&vault, "erp", "canary");
    vault.remove(&name("erp")).unwrap();
    fs::remove_file(vault.path(KEY_FILE)).unwrap();
    seal(&vault, "erp", "canary-again");
    assert_eq!(opened(&vault, "erp").unwrap(), "canary-again");
    for value in [String::new(), "x".repeat(limits::SEALED_BYTES + 1)] {
        let error = vault.set(&name("x"), &value.into(), Wall(0)).unwrap_err();
        assert_eq!(error.code, Code::BadRequest);
    }
    for text in ["", "a b", "a}", "é", &"x".repeat(limits::SEALED_NAME_BYTES + 1)] {
        assert_eq!(text.parse::<SecretName>().unwrap_err().code, Code::BadName, "{text}");
    }
    let longest = "x".repeat(limits::SEALED_BYTES);
    seal(&vault, &"n".repeat(limits::SEALED_NAME_BYTES), &longest);
    for number in vault.list().unwrap().len()..limits::SEALED_SECRETS {
        seal(&vault, &format!("s{number}"), "v");
    }
    let error = vault.set(&name("more"), &"v".into(), Wall(0)).unwrap_err();
    assert_eq!(error.code, Code::BadRequest);
    assert!(seal(&vault, "erp", "the place of one that is there"));
}

#[test]
fn commands_beside_each_other_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let vault = Vault::of(home.path());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let vault = &vault;
            scope.spawn(move || seal(vault, &format!("s{number}"), &format!("v{number}")));
        }
    });
    for number in 0..8 {
        assert_eq!(opened(&vault, &format!("s{number}")).unwrap(), format!("v{number}"));
    }
}

#[test]
fn a_key_that_is_handed_over_counts_and_none_is_made_in_the_folder() {
    let (home, handed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let beside = Vault::of(home.path());
    assert!(!beside.is_beside_its_key(), "nothing is sealed");
    seal(&beside, "erp", "one");
    assert!(beside.is_beside_its_key());
    let key = handed.path().join(KEY_FILE);
    fs::rename(beside.path(KEY_FILE), &key).unwrap();
    let mut own = fs::metadata(&key).unwrap().permissions();
    own.set_readonly(true);
    fs::set_permissions(&key, own).unwrap();
    let apart = Vault { handed: Some(key), ..beside.clone() };
    assert!(!apart.is_beside_its_key());
    assert_eq!(opened(&apart, "erp").unwrap(), "one");
    seal(&apart, "erp", "two");
    assert_eq!(opened(&apart, "erp").unwrap(), "two");
    assert!(!beside.path(KEY_FILE).exists());
    refused(&beside, "erp", [KEY_FILE, "restore the right one"]);
}
