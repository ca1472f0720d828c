//! Sessions on a real store: grants, refusals, cursors.

use super::*;
use crate::{
    model::catalog::{At, Place},
    service::trial::{NOW, Trial, at},
};

async fn offered(trial: &Trial) -> OfferView {
    trial.store.stream_views(trial.caller.tenant).await.unwrap().remove(0).offer.unwrap()
}

fn refusal(response: OpenResponse) -> String {
    match response.result.unwrap() {
        open_response::Result::Refused(refused) => refused.code,
        open_response::Result::Held(held) => format!("held {}", held.retry_after_seconds),
        open_response::Result::Granted(granted) => format!("granted {}", granted.epoch),
    }
}

fn renew(epoch: u64, nonce: u128) -> RenewRequest {
    let nonce = Nonce(uuid::Uuid::from_u128(nonce)).to_string();
    RenewRequest { erp: "RM".into(), epoch, nonce, ..RenewRequest::default() }
}

#[tokio::test]
async fn a_lease_is_granted_held_renewed_lapsed_and_released() {
    let trial = Trial::new();
    let sessions = Sessions::new(trial.store.clone());
    assert_eq!(refusal(trial.ask(Trial::request(1, 1), NOW).await), "granted 1");
    assert_eq!(refusal(trial.ask(Trial::request(1, 1), NOW).await), "granted 2");
    assert_eq!(refusal(trial.ask(Trial::request(2, 2), NOW).await), "held 5");
    sessions.renew(&trial.caller, renew(2, 1), at(20)).await.unwrap();
    assert_eq!(refusal(trial.ask(Trial::request(2, 2), at(49)).await), "held 5");
    assert_eq!(refusal(trial.ask(Trial::request(2, 2), at(50)).await), "granted 3");
    assert_eq!(
        sessions.renew(&trial.caller, renew(2, 1), at(51)).await.unwrap_err().code,
        Code::Fenced
    );
    let release = |epoch| ReleaseRequest { erp: "RM".into(), epoch };
    assert_eq!(
        sessions.release(&trial.caller, release(2), at(51)).await.unwrap_err().code,
        Code::Fenced
    );
    sessions.release(&trial.caller, release(3), at(51)).await.unwrap();
    sessions.release(&trial.caller, release(3), at(51)).await.unwrap();
    assert_eq!(refusal(trial.ask(Trial::request(1, 1), at(51)).await), "granted 4");
}

#[tokio::test]
async fn two_copies_of_one_instance_are_both_stopped_until_a_person_decides() {
    let trial = Trial::new();
    let sessions = Sessions::new(trial.store.clone());
    trial.open(1, 1, NOW).await;
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), NOW).await), "INSTANCE_TWICE");
    assert_eq!(
        sessions.renew(&trial.caller, renew(1, 1), NOW).await.unwrap_err().code,
        Code::InstanceTwice
    );
    // Within a lease nothing helps; a lapse serves one of them until what is heard can be no late call any more.
    for turn in 0..40 {
        let nonce = if turn % 2 == 0 { 2 } else { 1 };
        let said = refusal(trial.ask(Trial::request(1, nonce), at(2 + 20 * turn)).await);
        assert!(
            said == "INSTANCE_TWICE" || said.starts_with("granted") && turn < 25,
            "{turn}: {said}"
        );
    }
    // Neither a lapse nor another instance's lease in between brings one of them back.
    for nonce in [1, 2, 3] {
        assert_eq!(refusal(trial.ask(Trial::request(1, nonce), at(900)).await), "INSTANCE_TWICE");
    }
    let granted = refusal(trial.ask(Trial::request(2, 9), at(931)).await);
    let epoch: u64 = granted.strip_prefix("granted ").unwrap().parse().unwrap();
    sessions
        .release(&trial.caller, ReleaseRequest { erp: "RM".into(), epoch }, at(932))
        .await
        .unwrap();
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), at(933)).await), "INSTANCE_TWICE");
    assert!(trial.store.stream_views(trial.caller.tenant).await.unwrap()[0].disputed);
    let caller = &trial.caller;
    let place = Place {
        tenant: caller.tenant,
        environment: caller.stream().environment,
        erp: caller.stream().erp,
    };
    trial.store.release_by_operator(place).await.unwrap();
    let granted = |further| format!("granted {}", epoch + further);
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), at(934)).await), granted(1));
    // A late call of the one that was ended stops nobody for longer than a lease.
    assert_eq!(refusal(trial.ask(Trial::request(1, 1), at(935)).await), "INSTANCE_TWICE");
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), at(964)).await), granted(2));
}

#[tokio::test]
async fn a_process_that_follows_a_dead_one_without_its_epoch_waits_for_the_lapse_alone() {
    let trial = Trial::new();
    trial.open(1, 1, NOW).await;
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), at(1)).await), "INSTANCE_TWICE");
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), at(29)).await), "INSTANCE_TWICE");
    assert_eq!(refusal(trial.ask(Trial::request(1, 2), at(30)).await), "granted 2");
}

#[tokio::test]
async fn another_database_or_one_set_back_in_time_waits_for_a_person() {
    let trial = Trial::new();
    let sessions = Sessions::new(trial.store.clone());
    let with = |fact: &str, position: &'static [u8]| {
        let mut request = Trial::request(1, 1);
        let identity = request.database_identity.as_mut().unwrap();
        identity.facts.insert("file_id".into(), fact.into());
        identity.position = position.into();
        request
    };
    assert_eq!(refusal(trial.ask(with("7", b"\x01\x00"), NOW).await), "granted 1");
    assert_eq!(refusal(trial.ask(with("7", b"\x02\x00"), NOW).await), "granted 2");
    assert_eq!(refusal(trial.ask(with("7", b"\x01\xff"), NOW).await), "DATABASE_CHANGED");
    assert_eq!(refusal(trial.ask(with("8", b"\x02\x00"), NOW).await), "DATABASE_CHANGED");
    assert_eq!(refusal(trial.ask(with("7", b"\x02\x00"), NOW).await), "granted 3");
    let stream = trial.caller.stream();
    let accept = |mark: String, dry| sessions.accept_database(stream.clone(), mark, dry);
    assert_eq!(accept(String::new(), false).await.unwrap_err().code, Code::NotFound);
    assert_eq!(refusal(trial.ask(with("8", b"\x00\x01"), NOW).await), "DATABASE_CHANGED");
    let seen = offered(&trial).await;
    // Another copy offered its own since a person looked.
    assert_eq!(refusal(trial.ask(with("9", b"\x00\x01"), at(1)).await), "DATABASE_CHANGED");
    for dry in [true, false] {
        let refused = accept(seen.fingerprint.clone(), dry).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound);
        assert!(refused.message.contains(&offered(&trial).await.fingerprint), "{refused}");
    }
    assert_eq!(refusal(trial.ask(with("8", b"\x00\x01"), at(2)).await), "DATABASE_CHANGED");
    // It goes on, and is the same.
    assert_eq!(refusal(trial.ask(with("8", b"\x00\x02"), at(3)).await), "DATABASE_CHANGED");
    let again = offered(&trial).await;
    assert_eq!(again.fingerprint, seen.fingerprint);
    assert_eq!((again.since, again.at), (At(at(2).0), At(at(3).0)));
    accept(seen.fingerprint.clone(), true).await.unwrap();
    assert_eq!(refusal(trial.ask(with("8", b"\x00\x02"), at(4)).await), "DATABASE_CHANGED");
    accept(seen.fingerprint, false).await.unwrap();
    assert!(trial.store.stream_views(trial.caller.tenant).await.unwrap()[0].offer.is_none());
    assert_eq!(refusal(trial.ask(with("8", b"\x00\x02"), NOW).await), "granted 4");
}

#[tokio::test]
async fn f51_a_renewal_tells_how_far_the_database_is_and_one_of_another_database_renews_nothing() {
    let trial = Trial::new();
    let sessions = Sessions::new(trial.store.clone());
    let at_position = |position: &'static [u8]| {
        let mut request = Trial::request(1, 1);
        request.database_identity.as_mut().unwrap().position = position.into();
        request
    };
    assert_eq!(refusal(trial.ask(at_position(b"\x05"), NOW).await), "granted 1");
    let told = |position: &'static [u8]| RenewRequest { position: position.into(), ..renew(1, 1) };
    sessions.renew(&trial.caller, told(b"\x09"), at(10)).await.unwrap();
    // What was read before the one that is known says nothing.
    sessions.renew(&trial.caller, told(b"\x07"), at(11)).await.unwrap();
    // A process that begins anew within the lease, on a copy of before: it gets neither this lease nor the next one.
    let again =
        RenewRequest { database_identity: at_position(b"\x08").database_identity, ..renew(1, 2) };
    let refused = sessions.renew(&trial.caller, again, at(20)).await.unwrap_err();
    assert_eq!(refused.code, Code::DatabaseChanged);
    assert_eq!(refusal(trial.ask(at_position(b"\x08"), at(60)).await), "DATABASE_CHANGED");
    assert_eq!(refusal(trial.ask(at_position(b"\x09"), at(60)).await), "granted 2");
    let again =
        RenewRequest { database_identity: at_position(b"\x0a").database_identity, ..renew(2, 2) };
    sessions.renew(&trial.caller, again, at(61)).await.unwrap();
    assert_eq!(refusal(trial.ask(at_position(b"\x09"), at(99)).await), "DATABASE_CHANGED");
}

#[tokio::test]
async fn requests_beyond_the_contract_are_refused_by_name() {
    let trial = Trial::new();
    let sessions = Sessions::new(trial.store.clone());
    let mut old = Trial::request(1, 1);
    old.versions.as_mut().unwrap().protocol = 2;
    assert_eq!(refusal(trial.ask(old, NOW).await), "VERSION_UNSUPPORTED");
    let mut foreign = Trial::request(1, 1);
    foreign.erp = "PROTHEUS".into();
    let error = sessions.open(&trial.caller, foreign, NOW).await.unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
    let epoch = Some(trial.open(1, 1, NOW).await);
    let long = &[0; limits::CURSOR_BYTES + 1];
    assert_eq!(
        trial.prepare(&sessions, epoch, 1, long).await.unwrap_err().code,
        Code::InvalidArgument
    );
    assert_eq!(
        trial.prepare(&sessions, epoch, 0, b"x").await.unwrap_err().code,
        Code::InvalidArgument
    );
    assert_eq!(
        trial.prepare(&sessions, Some(Epoch(9)), 1, b"x").await.unwrap_err().code,
        Code::Fenced
    );
    trial.prepare(&sessions, epoch, 1, b"x").await.unwrap();
}
