//! Abuse from loopback against the real server process (F65): streams reset as fast as they open (CVE-2023-44487), headers
//! that never end, floods of settings and pings, bodies that come byte by byte, peers that say nothing. A bomb and a
//! message that would decode to many times its size are tested where they are refused, in the server's `grpc::tests`.

use std::time::Duration;

use runtime::{
    clock::{self, Mono},
    task,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::whole::cloud::Cloud;

/// Frames of HTTP/2 that are written and looked for (RFC 9113, 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// The error that says: too many.
const ENHANCE_YOUR_CALM: u32 = 11;
/// A server that holds more than this after an attack has kept what it should have thrown away.
const MOST_MEMORY: u64 = 128 * 1024 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The kinds and payloads of what came, as far as whole frames came.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        found.push((head[3], payload.to_vec()));
        bytes = &rest[length..];
    }
    found
}

/// POST http://x/ of a stream that ends later: indexed fields of the static table and one literal (RFC 7541).
const REQUEST: [u8; 6] = [0x83, 0x86, 0x84, 0x41, 0x01, b'x'];

/// Opens and resets streams until the server has enough; what it answered.
async fn reset_rapidly(target: &str) -> Vec<(u8, Vec<u8>)> {
    let one = |stream: u32| {
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [frame(HEADERS, 4, stream, &REQUEST), reset].concat()
    };
    flood(target, (1..20_000).step_by(2).map(one)).await
}

/// Writes these frames on one connection until they are through or the server has enough; what it answered.
async fn flood(target: &str, parts: impl Iterator<Item = Vec<u8>>) -> Vec<(u8, Vec<u8>)> {
    let stream = TcpStream::connect(target).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let answered = task::spawn("answers", async move {
        let mut bytes = Vec::new();
        // An error is an end as good as another.
        let _ = read.read_to_end(&mut bytes).await;
        bytes
    });
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for part in parts {
        bytes.extend(part);
        if bytes.len() > 64 * 1024 {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
            bytes.clear();
        }
    }
    drop(write);
    frames(&answered.join().await.unwrap())
}

fn calmed(frames: &[(u8, Vec<u8>)]) -> bool {
    let told = ENHANCE_YOUR_CALM.to_be_bytes();
    frames.iter().any(|(kind, payload)| *kind == GOAWAY && payload.get(4..8) == Some(&told[..]))
}

#[tokio::test]
async fn streams_that_are_reset_as_fast_as_they_open_end_their_connection_and_no_other() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    for target in [cloud.grpc_target(), cloud.registry_base().replace("http://", "")] {
        for _ in 0..8 {
            let answered = tokio::time::timeout(Duration::from_secs(20), reset_rapidly(&target));
            let answered = answered.await.expect("the connection is not ended");
            assert!(calmed(&answered), "{target}: {answered:?}");
        }
        let begun = Mono::now();
        assert!(!cloud.token().await.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    let memory = cloud.memory();
    assert!(memory < MOST_MEMORY, "{memory} bytes are held");
}

/// A connection that is flooded is ended or dragged along; others are served meanwhile, and nothing is kept of it.
#[tokio::test]
async fn f65_headers_without_end_and_floods_of_settings_and_pings_keep_nobody_waiting() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    // One literal field that is never indexed, `x: aaa…` (RFC 7541, 6.2.3).
    let field = [&[0x10, 1, b'x', 100][..], &[b'a'; 100]].concat();
    let endless = |part: u32| match part {
        0 => frame(HEADERS, 0, 1, &REQUEST),
        _ => frame(CONTINUATION, 0, 1, &field.repeat(100)),
    };
    let empty = |part: u32| frame(if part == 0 { HEADERS } else { CONTINUATION }, 0, 1, &[]);
    let settings = |part: u32| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, part.to_be_bytes()[3]]);
    let pings = |part: u32| frame(PING, 0, 0, &u64::from(part).to_be_bytes());
    for target in [cloud.grpc_target(), cloud.registry_base().replace("http://", "")] {
        let limit = Duration::from_secs(30);
        let answered = tokio::time::timeout(limit, flood(&target, (0..20_000).map(endless))).await;
        let answered = answered.expect("headers without end are read on");
        assert!(
            answered.iter().all(|(kind, _)| *kind != HEADERS),
            "headers without end are answered"
        );
        for parts in [
            Box::new((0..100_000).map(empty)) as Box<dyn Iterator<Item = Vec<u8>> + Send>,
            Box::new((0..100_000).map(settings)),
            Box::new((0..100_000).map(pings)),
        ] {
            let others = async {
                let begun = Mono::now();
                assert!(!cloud.token().await.is_empty());
                begun.elapsed()
            };
            let (flooded, took) =
                tokio::join!(tokio::time::timeout(limit, flood(&target, parts)), others);
            assert!(flooded.is_ok(), "a flood holds its connection up");
            assert!(took < Duration::from_secs(5), "others waited {took:?}");
        }
    }
    let memory = cloud.memory();
    assert!(memory < MOST_MEMORY, "{memory} bytes are held");
}

/// Connects from the loopback address with that last part: connections of one address are bounded.
async fn connect_from(last: u8, target: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(target.parse().unwrap()).await.unwrap()
}

/// A call for a token whose body does not end; the first bytes of the answer, or none where it was cut.
async fn dawdle(last: u8, target: String) -> (Vec<u8>, Duration) {
    let begun = Mono::now();
    let mut stream = connect_from(last, &target).await;
    let head = "POST /totvs.rac/connect/token HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\ng";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let drip = task::spawn("drip", async move {
        while write.write_all(b"=").await.is_ok() {
            clock::sleep(Duration::from_millis(300)).await;
        }
    });
    let mut answer = Vec::new();
    // An error is an end as good as another.
    let _ = read.read_to_end(&mut answer).await;
    drip.abort();
    (answer, begun.elapsed())
}

#[tokio::test]
async fn bodies_that_come_byte_by_byte_are_ended_and_keep_nobody_waiting() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let target = cloud.registry_base().replace("http://", "");
    let slow: Vec<_> = (0..=255)
        .chain(0..44)
        .map(|at: u8| task::spawn("slow", dawdle(2 + at % 3, target.clone())))
        .collect();
    let begun = Mono::now();
    for _ in 0..20 {
        assert!(!cloud.token().await.is_empty());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let limit = protocol::limits::CALL_TIMEOUT + Duration::from_secs(15);
    for one in slow {
        let (answer, took) = tokio::time::timeout(limit, one.join()).await.unwrap().unwrap();
        assert!(took < limit, "{took:?}");
        let head = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || head.contains("\"code\":\"TIMEOUT\""), "{head}");
    }
    assert!(!cloud.token().await.is_empty());
    let memory = cloud.memory();
    assert!(memory < MOST_MEMORY, "{memory} bytes are held");
}

#[tokio::test]
async fn peers_that_say_nothing_are_cut_and_one_address_cannot_take_every_place() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let target = cloud.registry_base().replace("http://", "");
    let mut silent = Vec::new();
    for at in 0..600_u16 {
        let mut stream = connect_from(2 + (at % 6) as u8, &target).await;
        if at % 2 == 0 {
            // As far as nobody can tell whether HTTP/1 or HTTP/2 will be spoken.
            stream.write_all(b"PRI * HTT").await.unwrap();
        }
        silent.push(stream);
    }
    let begun = Mono::now();
    assert!(!cloud.token().await.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let mut end = Vec::new();
    for stream in &mut silent {
        let limit = Duration::from_secs(30);
        // An error is an end as good as another.
        let _ = tokio::time::timeout(limit, stream.read_to_end(&mut end)).await.expect("not cut");
    }
    assert!(end.is_empty());

    let most = protocol::limits::ADDRESS_HTTP_CONNECTIONS;
    let mut greedy = Vec::new();
    for _ in 0..most {
        greedy.push(connect_from(9, &target).await);
    }
    let mut one_more = connect_from(9, &target).await;
    let at_once =
        tokio::time::timeout(Duration::from_secs(5), one_more.read_to_end(&mut end)).await;
    assert!(at_once.is_ok(), "one more than {most} is closed at once");
    assert!(!cloud.token().await.is_empty(), "another address is served");
}
