//! Tests of the profiles.

use super::{super::Mask, *};

fn table(name: &str, columns: &[&str]) -> Found {
    let column = |name: &&str| FoundColumn {
        name: (*name).to_owned(),
        type_name: TypeName::plain(ColumnType::String),
        native: "text".to_owned(),
        native_id: 25,
        nullable: false,
        stamp_unfit: None,
        key_unfit: None,
    };
    Found {
        schema: None,
        table: name.to_owned(),
        columns: columns.iter().map(column).collect(),
        primary: columns.first().map(|name| (*name).to_owned()).into_iter().collect(),
        unique: Vec::new(),
        fingerprint: [0; 16],
    }
}

fn spec(wire: &str) -> TableSpec {
    TableSpec::of(wire.parse().unwrap())
}

fn protheus() -> Profile {
    Profile::Protheus { company_group: "99".into(), layout: BranchLayout { company: 2, unity: 1 } }
}

#[test]
fn rm_takes_its_stamp_with_five_minutes_where_the_table_has_it() {
    let found = table("FLAN", &["IDLAN", "RecModifiedOn"]);
    let shape = Profile::Rm.shape(&spec("flan"), &found, Duration::from_secs(10)).unwrap();
    let stamp = shape.stamp.unwrap();
    assert_eq!(
        (stamp.column.as_str(), stamp.allowance),
        ("RecModifiedOn", Duration::from_secs(300))
    );
    assert!(!shape.shared_key && shape.soft_delete.is_none());
    let mut none = spec("flan");
    none.no_stamp = true;
    assert!(Profile::Rm.shape(&none, &found, Duration::ZERO).unwrap().stamp.is_none());
    assert!(Profile::Generic.shape(&spec("flan"), &found, Duration::ZERO).unwrap().stamp.is_none());
}

#[test]
fn protheus_names_hold_the_group_and_read_back() {
    let wire = "SE1".parse().unwrap();
    assert_eq!(protheus().physical(&wire), "SE1990");
    assert_eq!(protheus().wire("se1990").as_deref(), Some("SE1"));
    for other in ["SE1010", "MALOTE990", "990", "SX"] {
        assert_eq!(protheus().wire(other), None, "{other}");
    }
}

#[test]
fn protheus_key_is_the_unique_index_without_the_deleted_row_number() {
    let mut found = table(
        "FKD990",
        &["R_E_C_N_O_", "FKD_FILIAL", "FKD_ID", "R_E_C_D_E_L_", "D_E_L_E_T_", "S_T_A_M_P_"],
    );
    let index = ["FKD_FILIAL", "FKD_ID", "R_E_C_D_E_L_"].map(str::to_owned).to_vec();
    found.unique.push(("fkd990_unq".into(), index));
    let shape = protheus().shape(&spec("FKD"), &found, Duration::from_secs(10)).unwrap();
    assert_eq!(shape.page_key, ["R_E_C_N_O_"]);
    assert_eq!(shape.soft_delete, Some(("D_E_L_E_T_".into(), "*".into())));
    assert!(shape.shared_key);
    let names: Vec<_> = shape.columns.iter().skip(6).map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["company_group", "company", "unity", "branch", "protheus_pk"]);
    assert_eq!(shape.columns[10].from, ColumnSource::Joined(vec![6, 1, 2]));
    assert_eq!(shape.columns[9].from, ColumnSource::Slice { of: 1, from: 3, to: usize::MAX });
    found.unique.clear();
    let shape = protheus().shape(&spec("FKD"), &found, Duration::ZERO).unwrap();
    assert_eq!(shape.columns[10].from, ColumnSource::Joined(vec![6, 0]));
    assert!(!shape.shared_key, "the row number is never shared");
}

#[test]
fn clashing_names_and_unknown_declarations_are_refused() {
    let code = |columns: &[&str]| {
        Profile::Generic.shape(&spec("t"), &table("t", columns), Duration::ZERO).unwrap_err().code
    };
    assert_eq!(code(&["a", "A"]), Code::ColumnClash);
    assert_eq!(code(&["a", "Deleted"]), Code::ColumnClash);
    assert_eq!(code(&["a", "_KEY"]), Code::ColumnClash);
    assert_eq!(code(&["a", " b"]), Code::BadName);
    assert_eq!(code(&[]), Code::TableWithoutKey);
}

#[test]
fn columns_left_out_are_gone_and_the_key_s_places_are_those_of_the_rest() {
    let found = table("FLAN", &["IDLAN", "OBS", "VALOR", "NOME"]);
    let mut given = spec("FLAN");
    given.disclosure.exclude = vec!["obs".parse().unwrap()];
    given.disclosure.masks = vec![("nome".parse().unwrap(), Mask::Last(2))];
    given.key = None;
    let shape = Profile::Rm.shape(&given, &found, Duration::ZERO).unwrap();
    let names: Vec<_> = shape.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((names, shape.key), (vec!["IDLAN", "VALOR", "NOME"], vec![0]));
    assert_eq!(shape.columns[2].mask, Some(Mask::Last(2)));
    given.disclosure.only = Some(vec!["IDLAN".parse().unwrap(), "NOME".parse().unwrap()]);
    let shape = Profile::Rm.shape(&given, &found, Duration::ZERO).unwrap();
    assert_eq!(shape.columns.len(), 2);
}

#[test]
fn what_a_protheus_row_is_named_and_placed_by_can_be_neither_masked_nor_left_out() {
    let mut found = table("FKD990", &["R_E_C_N_O_", "FKD_FILIAL", "FKD_ID", "FKD_X", "D_E_L_E_T_"]);
    found.unique.push(("fkd990_unq".into(), vec!["FKD_ID".into()]));
    let refused = |name: &str| {
        let mut given = spec("FKD");
        given.disclosure.masks = vec![(name.parse().unwrap(), Mask::Null)];
        protheus().shape(&given, &found, Duration::ZERO).map(|_| ()).map_err(|error| error.code)
    };
    for name in ["R_E_C_N_O_", "FKD_FILIAL", "FKD_ID"] {
        assert_eq!(refused(name), Err(Code::MaskUnfit), "{name}");
    }
    assert_eq!(refused("FKD_X"), Ok(()));
    assert_eq!(refused("D_E_L_E_T_"), Ok(()), "a deleted row is known by the value as it is read");
    assert_eq!(refused("protheus_pk"), Err(Code::ConfigInvalid));
}

#[test]
fn datasul_and_logix_take_a_unique_index_where_neither_catalogue_nor_declaration_has_a_key() {
    let mut found = table("emitente", &["cod_emitente", "nome", "progress_recid"]);
    found.primary.clear();
    let key = |profile: &Profile, found: &Found, given: &TableSpec| {
        let shape = profile.shape(given, found, Duration::ZERO).map_err(|error| error.code)?;
        assert!(shape.stamp.is_none() && shape.soft_delete.is_none() && !shape.shared_key);
        assert_eq!(shape.key.len(), shape.page_key.len());
        Ok(shape.page_key.join("+"))
    };
    let plain = spec("EMITENTE");
    assert_eq!(key(&Profile::Datasul, &found, &plain), Err(Code::TableWithoutKey));
    found.unique.push(("codigo".into(), vec!["cod_emitente".into()]));
    assert_eq!(key(&Profile::Logix, &found, &plain).as_deref(), Ok("cod_emitente"));
    assert_eq!(key(&Profile::Generic, &found, &plain), Err(Code::TableWithoutKey));
    found.unique.push(("recid".into(), vec!["progress_recid".into()]));
    assert_eq!(key(&Profile::Datasul, &found, &plain).as_deref(), Ok("progress_recid"));
    assert_eq!(key(&Profile::Logix, &found, &plain), Err(Code::TableWithoutKey), "two: which?");
    let declared = TableSpec { key: Some(vec!["nome".parse().unwrap()]), ..plain.clone() };
    assert_eq!(key(&Profile::Datasul, &found, &declared).as_deref(), Ok("nome"));
    found.columns[2].nullable = true;
    assert_eq!(key(&Profile::Datasul, &found, &plain).as_deref(), Ok("cod_emitente"));
    found.primary = vec!["cod_emitente".into()];
    assert_eq!(key(&Profile::Logix, &found, &declared).as_deref(), Ok("cod_emitente"));
}
