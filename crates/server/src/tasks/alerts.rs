//! Alerts: a reconciler that looks whether something is wrong, and beside it one that has people told.
//!
//! Promises: a look that fails is repeated with the next one; what is to be told waits in the store; a mail server that is
//! slow or away holds up no look.
//! Never: ends before the drain; waits for a mail server with it.

use std::time::Duration;

use futures_util::future::join;
use protocol::Result;
use runtime::{
    clock::{Wall, sleep},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use crate::service::alerts::{Look, Mails};

/// How long a mail under way may take to end with the drain; what was cut off is sent again after its lease.
const LAST: Duration = Duration::from_secs(3);

/// Runs until the drain, with that pause between two looks.
pub async fn run(look: Look, mails: Mails, period: Duration, shutdown: Shutdown) {
    let looked = Notify::new();
    let looks = looking(look, (period, &looked), shutdown.clone());
    join(looks, mailing(mails, &looked, shutdown)).await;
}

async fn looking(mut look: Look, (period, looked): (Duration, &Notify), mut shutdown: Shutdown) {
    while !shutdown.is_draining() {
        noted(look.look(Wall::now()).await, "what is wrong cannot be looked at whole");
        looked.notify_one();
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = sleep(period) => {}
        }
    }
}

/// A round after each look, or after as many as it lasts.
async fn mailing(mails: Mails, looked: &Notify, mut shutdown: Shutdown) {
    while !shutdown.is_draining() {
        let mut draining = shutdown.clone();
        let last = async {
            draining.draining().await;
            sleep(LAST).await;
        };
        let sent = tokio::select! {
            biased;
            sent = mails.send() => sent.map(|_| ()),
            () = last => Ok(()),
        };
        noted(sent, "mails about alerts cannot be sent");
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = looked.notified() => {}
        }
    }
}

fn noted(result: Result<()>, words: &str) {
    if let Err(error) = result {
        tracing::warn!(code = %error.code, cause = error.cause(), "{words}, it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use protocol::limits;
    use runtime::{clock::Mono, shutdown, task};

    use super::*;
    use crate::{
        app::fixture::Running,
        model::{
            alert::{Language, MailTls, Wanted},
            catalog::Page,
        },
        service::alerts::{NewMailServer, NewRoute},
    };

    #[tokio::test]
    async fn a_mail_server_that_never_answers_holds_up_no_look() {
        let running = Running::start().await;
        let alerts = running.app.services.alerts.clone();
        let tenant = Some(running.tenant.id);
        // Connections are taken by the system and never answered.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let server = NewMailServer {
            host: "127.0.0.1".into(),
            port: Some(silent.local_addr().unwrap().port()),
            tls: MailTls::None,
            from: "malote@loja.example".into(),
            login: None,
        };
        alerts.set_mail_server(server).await.unwrap();
        let (address, language) = ("ana@loja.example".into(), Language::En);
        let route = NewRoute { address, language, environment: None };
        alerts.set_routes(tenant, vec![route]).await.unwrap();
        // The second batch gives the first one up.
        for batch in [100, 101] {
            running.sent((batch, 1), &[&[("ID", "1"), ("N", "1")]]).await;
        }
        let (trigger, shutdown) = shutdown::channel();
        let period = Duration::from_millis(20);
        let work = run(alerts.looking(), alerts.mailing(), period, shutdown);
        let task = task::spawn("alerts", work);
        let begun = Mono::now();
        let mut called = None;
        loop {
            if called.is_none()
                && let Ok(connection) = silent.accept()
            {
                // Something else goes wrong while the mail is under way.
                called = Some(connection);
                running.sent((101, 2), &[&[("ID", "2"), ("N", "x")]]).await;
            }
            let page = Page { limit: 10, ..Page::default() };
            if alerts.list(tenant, Wanted::Open, page).await.unwrap().len() > 1 {
                break;
            }
            assert!(begun.elapsed() < limits::MAIL_TIMEOUT, "it waits for the mail server");
            sleep(Duration::from_millis(5)).await;
        }
        assert!(called.is_some());
        trigger.drain();
        task.join().await.unwrap();
    }
}
