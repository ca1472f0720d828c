//! Retention: a reconciler that removes what is older than the configuration keeps.
//!
//! Promises: goes in short steps with pauses between them, so that whoever writes waits for one step at most; a stream
//! that fails holds back only itself and is tried again, at first within a minute.
//! Never: ends before the drain; removes what is not staged; goes by a clock that leapt, for a day (F10).

use std::time::Duration;

use protocol::Result;
use runtime::{
    backoff::Backoff,
    clock::{Mono, Wall, sleep},
    shutdown::Shutdown,
};

use crate::{
    model::{retention::Removed, stream::StreamId},
    service::retention::Retention,
};

/// Days are kept, so an hour more is nothing.
const PERIOD: Duration = Duration::from_secs(3_600);
/// After a failure it is tried again within it; the pauses double up to the period.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// Between two steps: accepting has the writer for itself most of the time.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs until the drain, by the clock it is given.
pub async fn run(
    retention: Retention,
    clock: impl Fn() -> Wall + Send + 'static,
    mut shutdown: Shutdown,
) {
    let mut pauses = Backoff::new(FIRST_RETRY, PERIOD);
    let mut looked = None;
    while !shutdown.is_draining() {
        let now = clock();
        let done = match believes(&retention, (now, looked)).await {
            Ok(believed) => {
                looked = Some(Mono::now());
                !believed || all(&retention, (now, &mut shutdown)).await
            }
            Err(error) => {
                tracing::warn!(code = %error.code, chain = error.chain(), "when retention looked last cannot be read or noted");
                false
            }
        };
        if done {
            pauses.reset();
        }
        let pause = if done { PERIOD } else { pauses.next_pause() };
        wait(pause, &mut shutdown).await;
    }
}

/// Whether the clock is gone by now.
async fn believes(retention: &Retention, (now, looked): (Wall, Option<Mono>)) -> Result<bool> {
    let passed = looked.map_or(Duration::ZERO, Mono::elapsed);
    let (before, after) = retention.look(now, passed).await?;
    if after.doubts() && (looked.is_none() || !before.doubts()) {
        tracing::warn!(
            now = now.to_iso(),
            "the clock is more than a day ahead of what passed since retention looked last: nothing is removed for a day. Is it right? Then `malote server retention run` removes at once"
        );
    }
    Ok(!after.doubts())
}

/// One look at everything; false = some of it failed.
async fn all(retention: &Retention, (now, shutdown): (Wall, &mut Shutdown)) -> bool {
    let mut done = true;
    match retention.streams().await {
        Ok(streams) => {
            for stream in streams {
                let swept = sweep(retention, &stream, (now, shutdown)).await;
                let step = || retention.shrink_staging(&stream);
                if let Err(error) = swept.and(shrink(step, shutdown).await) {
                    done = false;
                    tracing::warn!(erp = %stream.erp, code = %error.code, chain = error.chain(), "retention failed, it is tried again");
                }
            }
        }
        Err(error) => {
            done = false;
            tracing::warn!(code = %error.code, chain = error.chain(), "streams cannot be listed");
        }
    }
    if let Err(error) = forget_deliveries(retention, (now, shutdown)).await {
        done = false;
        tracing::warn!(code = %error.code, chain = error.chain(), "old deliveries cannot be removed, it is tried again");
    }
    if let Err(error) = shrink(|| retention.shrink(), shutdown).await {
        done = false;
        tracing::warn!(code = %error.code, chain = error.chain(), "the store cannot be made smaller");
    }
    done
}

async fn sweep(
    retention: &Retention,
    stream: &StreamId,
    (now, shutdown): (Wall, &mut Shutdown),
) -> Result<()> {
    let Some(sweep) = retention.sweep(stream, now).await? else { return Ok(()) };
    let mut all = Removed::default();
    while !shutdown.is_draining() {
        let removed = retention.step(&sweep).await?;
        if removed.is_nothing() {
            break;
        }
        all += removed;
        wait(PAUSE, shutdown).await;
    }
    if !all.is_nothing() {
        let Removed { bodies, bytes, messages, batches, tombstones, .. } = all;
        tracing::info!(erp = %stream.erp, bodies, bytes, messages, batches, tombstones, "retention removed what is past its days");
    }
    Ok(())
}

async fn forget_deliveries(
    retention: &Retention,
    (now, shutdown): (Wall, &mut Shutdown),
) -> Result<()> {
    let mut all = 0;
    while !shutdown.is_draining() {
        let removed = retention.forget_deliveries(now).await?;
        if removed.is_nothing() {
            break;
        }
        all += removed.deliveries;
        wait(PAUSE, shutdown).await;
    }
    if all > 0 {
        tracing::info!(deliveries = all, "retention removed deliveries that are past their days");
    }
    Ok(())
}

/// Steps as long as one tells that there is more.
async fn shrink<F>(step: impl Fn() -> F, shutdown: &mut Shutdown) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    while !shutdown.is_draining() && step().await? {
        wait(PAUSE, shutdown).await;
    }
    Ok(())
}

async fn wait(time: Duration, shutdown: &mut Shutdown) {
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        () = sleep(time) => {}
    }
}

#[cfg(test)]
mod tests {
    use runtime::{shutdown, task};

    use super::*;
    use crate::{app::fixture::Running, model::retention::Trust};

    #[tokio::test]
    async fn the_task_removes_by_the_clock_it_is_given_and_ends_with_the_drain() {
        let running = Running::start().await;
        // The second batch abandons the first.
        for batch in [100, 101] {
            running.sent((batch, 1), &[&[("ID", "1"), ("S", "a")]]).await;
        }
        let bodies = || {
            let path = running.folder.path().join("store.sqlite");
            let sql = "SELECT group_concat(batch) FROM ingest_message WHERE body IS NOT NULL";
            let store = rusqlite::Connection::open(path).unwrap();
            store.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap()
        };
        let (trigger, shutdown) = shutdown::channel();
        let year = || Wall(Wall::now().0 + 365 * 86_400 * 1_000_000);
        let retention = running.app.services.retention.clone();
        let begun = Wall::now();
        // The server's own task looks at once.
        let known = loop {
            let known = retention.trust().await.unwrap();
            if known.believed.is_some() {
                break known;
            }
            assert!(Wall::now().since(begun).as_secs() < 20);
            tokio::task::yield_now().await;
        };
        // A clock that is a year ahead at once is not believed; one that a year of looks went before is.
        assert!(!believes(&retention, (year(), None)).await.unwrap());
        let doubted = retention.trust().await.unwrap();
        assert_eq!((doubted.believed, doubted.doubts()), (known.believed, true));
        let lasted = Trust { believed: Some(year()), ..Trust::default() };
        retention.keep_trust(lasted).await.unwrap();
        let task = task::spawn("retention-test", run(retention, year, shutdown));
        let begun = Wall::now();
        while bodies().as_deref() != Some("101") {
            assert!(Wall::now().since(begun).as_secs() < 20, "{:?}", bodies());
            tokio::task::yield_now().await;
        }
        trigger.drain();
        task.join().await.unwrap();
    }
}
