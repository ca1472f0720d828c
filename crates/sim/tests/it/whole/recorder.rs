//! A sender of its own that remembers every acknowledgement, to be held against the ledger (I1).
//!
//! Promises: an unknown outcome is repeated with the same bytes until it is known; only success=true is remembered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use runtime::{clock, task};
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::sender::{Sender, Target};

/// Sha of each acknowledged message, and the batches whose Summary was.
#[derive(Clone, Default, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) messages: BTreeMap<(i64, i32), Vec<u8>>,
    pub(crate) batches: Vec<i64>,
}

/// Sends batches of five until told to stop; ends with what was acknowledged.
pub(crate) fn start(target: Target, stop: Arc<AtomicBool>) -> task::Task<Acknowledged> {
    task::spawn("recorder", async move {
        let mut sender = Sender::new(target);
        let mut acknowledged = Acknowledged::default();
        let mut batch_id = clock::Wall::now().seconds();
        while !stop.load(Ordering::Relaxed) {
            batch(&mut sender, batch_id, &mut acknowledged).await;
            batch_id += 1;
        }
        acknowledged
    })
}

async fn batch(sender: &mut Sender, batch: i64, acknowledged: &mut Acknowledged) {
    for number in 1..=5 {
        let (id, of) = (number.to_string(), batch.to_string());
        let columns = &[("ID", "long"), ("BATCH", "long")];
        let row: &[(&str, &str)] = &[("ID", &id), ("BATCH", &of)];
        let message = sender.message((batch, number), (columns, 1), &[row]);
        loop {
            match known(sender.write(&message).await) {
                Some(answer) => {
                    assert!(answer.success, "{:?}", answer.errors);
                    break;
                }
                None => clock::sleep(Duration::from_millis(30)).await,
            }
        }
        let sha = Sha256::digest(message.encode_to_vec()).to_vec();
        acknowledged.messages.insert((batch, number), sha);
    }
    loop {
        match known(sender.summary(batch, 5, 5).await) {
            Some(answer) => {
                assert!(answer.success, "{:?}", answer.errors);
                break;
            }
            None => clock::sleep(Duration::from_millis(30)).await,
        }
    }
    acknowledged.batches.push(batch);
}

/// `None` where the outcome is not known.
fn known<A>(answer: Result<A, Status>) -> Option<A> {
    let unknown = [
        tonic::Code::Unavailable,
        tonic::Code::Unknown,
        tonic::Code::DeadlineExceeded,
        tonic::Code::Cancelled,
        tonic::Code::Internal,
    ];
    match answer {
        Ok(answer) => Some(answer),
        Err(status) => {
            assert!(unknown.contains(&status.code()), "{status:?}");
            None
        }
    }
}
