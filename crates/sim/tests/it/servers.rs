//! The server starter itself.

use sim::servers::{self, Postgres};

#[test]
fn postgres_is_available() {
    servers::available().expect("tests with PostgreSQL need its binaries; ./test.sh installs them");
}

#[tokio::test]
async fn postgres_survives_a_power_cut_and_its_folder_goes_with_it() {
    let mut server = Postgres::start().await.unwrap();
    let url = server.create_database("erp").await.unwrap();
    let client = servers::connect(&url).await.unwrap();
    client
        .batch_execute("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    server.stop_immediate().await.unwrap();
    assert!(servers::connect(&url).await.is_err());
    server.restart().await.unwrap();
    let client = servers::connect(&url).await.unwrap();
    assert_eq!(client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 1);
    drop(server);
    assert!(servers::connect(&url).await.is_err());
}

#[tokio::test]
async fn databases_of_the_shared_cluster_are_apart() {
    let (one, two) = (servers::shared().await.unwrap(), servers::shared().await.unwrap());
    assert_ne!(one, two);
    servers::connect(&one).await.unwrap().batch_execute("CREATE TABLE t (a int)").await.unwrap();
    assert!(servers::connect(&two).await.unwrap().query("SELECT * FROM t", &[]).await.is_err());
}
