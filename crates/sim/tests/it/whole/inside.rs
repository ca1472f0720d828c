//! An agent inside the test's own process: the rooms as `app` wires them, over a source that the test hands in.
//!
//! Promises: journal, capture and uplink are the real ones; only the source may be another.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agent::{
    app::{self, Room},
    capture::Worker,
    config::{AgentConfig, CaptureConfig, Deletes, TableConfig},
    journal::Journal,
    source::Source,
    uplink::{self, UplinkConfig},
};
use protocol::{Result, names::ErpName, proto::ingestion::DatabaseIdentity};
use runtime::{
    shutdown::{self, Trigger},
    task::{self, Task},
};

use super::cloud::Cloud;

/// A running agent; it drains when asked to, or with its drop.
pub(crate) struct Inside {
    stop: Trigger,
    running: Task<Result<()>>,
}

/// One stamped table, cycles without pause, and no key scan after the first that could find what was missed.
pub(crate) fn config(table: &str, stamp: &str, allowance_seconds: u64) -> AgentConfig {
    let declared = TableConfig {
        stamp: Some(stamp.parse().unwrap()),
        allowance_seconds: Some(allowance_seconds),
        ..TableConfig::default()
    };
    let capture = CaptureConfig {
        cycle_seconds: 0,
        key_scan_seconds: 3_600,
        duty_percent: 100,
        deletes: Deletes::Always,
        ..CaptureConfig::default()
    };
    let tables = BTreeMap::from([(table.parse().unwrap(), declared)]);
    AgentConfig { capture, tables, ..AgentConfig::default() }
}

impl Inside {
    pub(crate) async fn start<S: Source>(
        source: Arc<S>,
        cloud: &Cloud,
        config: AgentConfig,
    ) -> Self {
        let erp: ErpName = cloud.erp.parse().unwrap();
        let uplink = UplinkConfig {
            registry_url: cloud.registry(),
            client_id: cloud.client_id.parse().unwrap(),
            client_secret: cloud.secret.clone().into(),
            erp: erp.clone(),
            hosts: Vec::new(),
            allow_private: true,
            proxy: None,
            ca_pem: None,
            entities_every: Duration::from_secs(5),
            denied_retry: Duration::from_secs(1),
            source_away: protocol::limits::SOURCE_AWAY,
            agent_version: "test".to_owned(),
        };
        let (journal, _) = Journal::open(&cloud.folder.path().join("inside")).await.unwrap();
        let (trigger, drain) = shutdown::channel();
        let (stop, shutdown) = shutdown::channel();
        let asked = Arc::clone(&source);
        let identity = move || {
            let source = Arc::clone(&asked);
            async move { source.identity().await.map(told) }
        };
        let sending = uplink::run(journal.clone(), uplink, identity, drain.clone());
        let reading = Worker::new(source, journal.clone(), Arc::new(config), erp, drain).run();
        let rooms = vec![("uplink", Box::pin(sending) as Room), ("capture", Box::pin(reading))];
        let running = task::spawn("agent inside", async move {
            app::drive(&journal, trigger, rooms, shutdown).await
        });
        Self { stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.drain();
        self.running.join().await.unwrap().unwrap();
    }
}

fn told(identity: agent::source::Identity) -> uplink::Identity {
    let database = DatabaseIdentity {
        kind: identity.kind.to_owned(),
        facts: identity.facts.into_iter().collect(),
        position: identity.position,
    };
    uplink::Identity { database, version: identity.version }
}
