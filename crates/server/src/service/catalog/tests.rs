use super::*;
use crate::store::trial::Database;

struct World {
    _folder: tempfile::TempDir,
    catalog: Catalog,
    tenant: Tenant,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(Database::new(folder.path()).store());
    let tenant = catalog.create_tenant("Loja São João").await.unwrap();
    World { _folder: folder, catalog, tenant }
}

async fn place(world: &World) -> Place {
    let environment = world
        .catalog
        .create_environment(world.tenant.id, "prod", EnvironmentType::Production)
        .await
        .unwrap()
        .id;
    world
        .catalog
        .create_installation(world.tenant.id, "rm", "rm".parse().unwrap(), Some(environment))
        .await
        .unwrap();
    world.catalog.place(world.tenant.id, "", "").await.unwrap()
}

fn table(name: &str) -> NewEntity {
    NewEntity { table: name.parse().unwrap(), filter: None, is_custom: false }
}

#[tokio::test]
async fn a_thing_is_found_by_id_by_name_and_as_the_only_one() {
    let world = world().await;
    let catalog = &world.catalog;
    let by_id = world.tenant.id.to_string().replace('-', "");
    for key in ["", "Loja São João", by_id.as_str()] {
        assert_eq!(catalog.tenant(key).await.unwrap(), world.tenant);
    }
    assert_eq!(catalog.tenant("Nobody").await.unwrap_err().code, Code::NotFound);
    let other = catalog.create_tenant("Other").await.unwrap();
    assert_eq!(catalog.tenant("").await.unwrap_err().code, Code::BadRequest);
    assert_eq!(catalog.create_tenant("Other").await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(
        catalog.rename_tenant(&other, "Loja São João").await.unwrap_err().code,
        Code::AlreadyExists
    );
    assert_eq!(catalog.rename_tenant(&other, "Another").await.unwrap().name, "Another");
    for bad in ["", " ", "a\nb", &"x".repeat(129)] {
        assert_eq!(catalog.create_tenant(bad).await.unwrap_err().code, Code::BadName, "{bad:?}");
    }
}

#[tokio::test]
async fn an_environment_has_one_installation_per_erp_and_no_binding_is_replaced() {
    let world = world().await;
    let (catalog, tenant) = (&world.catalog, world.tenant.id);
    let one = catalog.create_environment(tenant, "one", EnvironmentType::Production).await.unwrap();
    let two = catalog.create_environment(tenant, "two", EnvironmentType::Custom).await.unwrap();
    let rm = catalog
        .create_installation(tenant, "a", "RM".parse().unwrap(), Some(one.id))
        .await
        .unwrap();
    let second =
        catalog.create_installation(tenant, "b", "RM".parse().unwrap(), None).await.unwrap();
    assert_eq!(catalog.bind(&second, one.id).await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(catalog.bind(&rm, two.id).await.unwrap_err().code, Code::AlreadyExists);
    catalog.unbind(&rm).await.unwrap();
    catalog.bind(&second, one.id).await.unwrap();
    assert_eq!(catalog.installation(tenant, "b").await.unwrap().environment, Some(one.id));
    let foreign = catalog.create_tenant("foreign").await.unwrap().id;
    let elsewhere =
        catalog.create_environment(foreign, "x", EnvironmentType::Production).await.unwrap();
    let rm = catalog.installation(tenant, "a").await.unwrap();
    assert_eq!(catalog.bind(&rm, elsewhere.id).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_reload_raises_the_generation_and_a_withdrawn_table_keeps_it() {
    let world = world().await;
    let place = place(&world).await;
    let catalog = &world.catalog;
    catalog.add_entities(&place, vec![table("FLAN"), table("TMOV")]).await.unwrap();
    let flan: TableName = "flan".parse().unwrap();
    assert_eq!(
        catalog.reload(&place, Some(&flan), true).await.unwrap(),
        [(flan.clone(), Generation(1))]
    );
    assert_eq!(catalog.reload(&place, None, false).await.unwrap().len(), 2);
    catalog.withdraw(&place, &flan).await.unwrap();
    assert_eq!(catalog.withdraw(&place, &flan).await.unwrap_err().code, Code::NotFound);
    assert_eq!(catalog.reload(&place, Some(&flan), false).await.unwrap_err().code, Code::NotFound);
    assert_eq!(catalog.entities(&place, false, Page::default()).await.unwrap().len(), 1);
    catalog.add_entities(&place, vec![table("FLAN")]).await.unwrap();
    let all = catalog.entities(&place, false, Page::default()).await.unwrap();
    let back = all.iter().find(|entity| entity.table == flan).unwrap();
    assert!(back.generation == Generation(2) && back.rebuild && back.force_reload());
}

#[tokio::test]
async fn tables_are_added_all_or_none_and_pages_follow_each_other() {
    let world = world().await;
    let place = place(&world).await;
    let catalog = &world.catalog;
    catalog.add_entities(&place, vec![table("B")]).await.unwrap();
    let twice = catalog.add_entities(&place, vec![table("A"), table("b")]).await.unwrap_err();
    assert_eq!(twice.code, Code::AlreadyExists);
    assert_eq!(catalog.entities(&place, false, Page::default()).await.unwrap().len(), 1);
    catalog.add_entities(&place, vec![table("A"), table("C")]).await.unwrap();
    let page = |after: &str| Page { after: after.into(), limit: 2, ..Page::default() };
    let first = catalog.entities(&place, false, page("")).await.unwrap();
    assert_eq!(first.iter().map(|entity| entity.table.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    let second = catalog.entities(&place, false, page("B")).await.unwrap();
    assert_eq!(second.iter().map(|entity| entity.table.as_str()).collect::<Vec<_>>(), ["C"]);
}

#[tokio::test]
async fn a_filter_is_trimmed_bounded_and_can_be_taken_away() {
    let world = world().await;
    let place = place(&world).await;
    let catalog = &world.catalog;
    let flan: TableName = "FLAN".parse().unwrap();
    catalog.add_entities(&place, vec![table("FLAN")]).await.unwrap();
    catalog.set_filter(&place, &flan, Some("  FLAN.IDLAN > 1000 ".into())).await.unwrap();
    let kept = catalog.entities(&place, false, Page::default()).await.unwrap();
    assert_eq!(kept[0].filter.as_deref(), Some("FLAN.IDLAN > 1000"));
    let long = format!("FLAN.IDLAN > {}", "1".repeat(limits::FILTER_BYTES));
    assert_eq!(
        catalog.set_filter(&place, &flan, Some(long)).await.unwrap_err().code,
        Code::FilterRefused
    );
    for hostile in [
        "1=1; DROP TABLE FLAN",
        "IDLAN = (SELECT 1)",
        "pg_sleep(9) = 1",
        "IDLAN > 1 --",
        "IDLAN = 'x",
    ] {
        let refused = catalog.set_filter(&place, &flan, Some(hostile.into())).await.unwrap_err();
        assert_eq!(refused.code, Code::FilterRefused, "{hostile}");
    }
    for good in
        ["IDLAN BETWEEN 1 AND 9 OR NOME LIKE 'a''b%'", "FLAN.D >= '2024-01-01' AND NOT (X IS NULL)"]
    {
        catalog.set_filter(&place, &flan, Some(good.into())).await.unwrap();
    }
    catalog.set_filter(&place, &flan, Some(String::new())).await.unwrap();
    assert_eq!(catalog.entities(&place, false, Page::default()).await.unwrap()[0].filter, None);
}

#[tokio::test]
async fn a_table_named_like_a_relation_of_the_staging_file_is_refused_before_it_is_shared() {
    let world = world().await;
    let place = place(&world).await;
    for name in ["malote_batches", "MALOTE_ANYTHING", "Malote_", "sqlite_master", "SQLITE_X"] {
        let new = vec![table("FLAN"), table(name)];
        let error = world.catalog.add_entities(&place, new).await.unwrap_err();
        assert_eq!(error.code, Code::NameReserved, "{name}");
        assert!(error.message.contains(name), "{error}");
    }
    assert!(world.catalog.entities(&place, true, everything()).await.unwrap().is_empty());
    let near = ["MALOTE", "MALOTES_X", "SQLITE", "X_MALOTE_X"].map(table).into();
    assert_eq!(world.catalog.add_entities(&place, near).await.unwrap().len(), 4);
}
