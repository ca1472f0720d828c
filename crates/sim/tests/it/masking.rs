//! Masking on the whole: a masked value never leaves the agent, neither to its own files nor to the server's.

use std::time::Duration;

use sim::servers;

use crate::whole::{
    erp::Erp,
    files::holding,
    world::{Plan, World},
};

const SLOW: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_masked_value_is_in_no_file_of_agent_or_server_whatever_happens_to_its_batch() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(
        "CREATE TABLE people (k integer PRIMARY KEY, v text, cpf text, mail text, obs text, n numeric,
                              changed_at timestamptz DEFAULT now());
         INSERT INTO people SELECT g, 'open-value-' || g, 'canary-cpf-' || g, 'canary-mail-' || g,
                'canary-obs-' || g, 900000 + g FROM generate_series(1, 500) g",
    )
    .await
    .unwrap();
    let declared = "[log]\nlevel = 'trace'\n[tables.people]\nstamp = 'changed_at'\nexclude = ['obs']\n\
                    mask = { cpf = 'hash', mail = 'null', n = 'last:3' }\n";
    let plan = Plan::new(&url, &["people"]).more(declared);
    let mut world = World::start(plan, erp).await;
    world.staged_reaches("SELECT count(*) FROM people WHERE n LIKE '*%'", 500, SLOW).await;
    world.kill_agent();
    world
        .erp
        .run("UPDATE people SET cpf = 'canary-cpf-new', changed_at = now() WHERE k < 9")
        .await
        .unwrap();
    world.start_agent();
    let same = "SELECT 9 - count(DISTINCT cpf) FROM people WHERE k < 9";
    world.staged_reaches(same, 8, SLOW).await;
    let folder = world.cloud.folder.path().to_owned();
    world.stop_agent().await;
    world.cloud.stop().await;
    assert!(!holding(&folder, "open-value-7").is_empty(), "the test looks where values are");
    assert_eq!(holding(&folder, "canary-"), Vec::<String>::new());
}
