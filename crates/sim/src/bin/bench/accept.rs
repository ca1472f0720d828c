//! Accept: how fast the server takes table messages that nobody has to read from a database first.
//!
//! Promises: beside it, in the same run, what the same calls cost a bare server, and the same bytes a file that is
//! synced; the clock of the rows staged runs from the first Write too.

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    clock::{self, Mono, Wall},
    task,
};
use sim::servers;

use super::{
    Options,
    measure::{cpu, figure, memory, middle_and_late, per_million, rate, talk},
    pouch::{Pouch, ROWS},
    sender::Sender,
    stage::{self, Cloud, Credentials},
};

const TABLE: &str = "movimento";
/// Messages that the server may take into one commit; the file is synced as seldom.
const GROUP: u64 = 64;
/// The first batch lies this far back, so that none is ahead of the server's clock.
const BACK: i64 = 3_600;

/// Measures the bare server, the file, and then the server.
///
/// # Errors
/// Where something cannot start, or a message is refused.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let count = options.streams.max(1);
    let messages = options.rows.div_ceil(ROWS * count);
    let rows = messages * ROWS * count;
    let bytes = Pouch::new("BENCH1", TABLE).message((1, 1), 0).len();
    figure(
        "rows, streams, bytes of text a row, bytes of a message of 200 rows",
        &format!("{rows}, {count}, {}, {bytes}", Pouch::row_text()),
    );
    bare(rows, messages, count).await?;
    for group in [1, GROUP] {
        let took = append(messages * count, group).await?;
        let what = format!("the same bytes appended to a file, synced every {group} messages");
        figure(&what, &rate(rows, took));
    }
    server(rows, messages, count).await
}

/// Names of the streams.
fn streams(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("BENCH{number}")).collect()
}

/// Sends on all connections at once; gives the time of each Write.
async fn send_all(senders: Vec<Sender>, messages: u64) -> Result<Vec<Duration>> {
    let batch = Wall::now().seconds() - BACK;
    let sending = senders.into_iter().map(|sender| {
        task::spawn("sender", async move { sender.send(TABLE, messages, batch).await })
    });
    let sending: Vec<_> = sending.collect();
    let mut times = Vec::new();
    for stream in sending {
        times.extend(stream.join().await??);
    }
    Ok(times)
}

/// This program once more, as the bare server.
struct Bare(Child);

impl Bare {
    fn start(port: u16) -> Result<Self> {
        let own = std::env::current_exe().coded(Code::Internal, "no file of its own")?;
        let mut command = Command::new(own);
        command.args(["bare", &port.to_string()]).stdin(Stdio::null());
        command.spawn().map(Self).coded(Code::Internal, "cannot start the bare server")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn bare(rows: u64, messages: u64, count: u64) -> Result<()> {
    talk("the same messages to a bare server");
    let port = servers::free_port()?;
    let bare = Bare::start(port)?;
    let begun = Mono::now();
    let mut senders = Vec::new();
    for erp in streams(count) {
        senders.push(loop {
            match Sender::connect(port, "none", &erp).await {
                Ok(sender) => break sender,
                Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error),
                Err(_) => clock::sleep(Duration::from_millis(20)).await,
            }
        });
    }
    let begun = Mono::now();
    let times = send_all(senders, messages).await?;
    let took = begun.elapsed();
    figure("a bare tonic server, which answers and keeps nothing", &rate(rows, took));
    let spent = per_million(cpu(bare.0.id())?, rows);
    figure("its CPU-seconds a million rows; time of a Write, p50, p99", &{
        format!("{spent:.1}; {}", middle_and_late(times))
    });
    Ok(())
}

/// Time to append that many messages to a file, synced after every `group` of them.
async fn append(messages: u64, group: u64) -> Result<Duration> {
    talk("the same bytes appended to a file");
    let work = move || {
        let folder = tempfile::Builder::new().prefix("malote-bench-").tempdir()?;
        let mut file = fs::File::create(folder.path().join("messages"))?;
        let pouch = Pouch::new("BENCH1", TABLE);
        let begun = Mono::now();
        for (number, at) in (1..).zip(0..messages) {
            file.write_all(&pouch.message((1, number), at * ROWS))?;
            if (at + 1) % group == 0 || at + 1 == messages {
                file.sync_data()?;
            }
        }
        Ok(begun.elapsed())
    };
    let took: std::io::Result<Duration> = task::blocking(work).await?;
    took.coded(Code::Internal, "cannot append")
}

async fn server(rows: u64, messages: u64, count: u64) -> Result<()> {
    talk("the same messages to the server");
    let streams = streams(count);
    let tables = [TABLE.to_owned()];
    let (cloud, made) = Cloud::start(stage::place()?, None, (&streams, &tables), None)?;
    let mut senders = Vec::new();
    for (erp, credentials) in streams.iter().zip(&made) {
        let token = token(cloud.http, credentials).await?;
        senders.push(Sender::connect(cloud.grpc, &token, erp).await?);
    }
    let id = cloud.server.id();
    let (begun, before) = (Mono::now(), cpu(id)?);
    let times = send_all(senders, messages).await?;
    let accepted = begun.elapsed();
    let at_ack = cpu(id)?.saturating_sub(before);
    cloud.staged(rows).await?;
    let applied = begun.elapsed();
    let spent = cpu(id)?.saturating_sub(before);
    figure("accepted by the server, acknowledged and durable", &rate(rows, accepted));
    figure("applied: the last of them staged", &rate(rows, applied));
    figure(
        "server's CPU-seconds a million rows: until the last acknowledgement, until all is staged",
        &format!("{:.1}, {:.1}", per_million(at_ack, rows), per_million(spent, rows)),
    );
    figure("most memory of the server", &format!("{:.0} MiB", memory(id, "VmHWM")?));
    figure("time of a Write until its acknowledgement, p50, p99", &middle_and_late(times));
    cloud.stop().await
}

/// The token call of the contract, asked again until the server answers.
async fn token(http: u16, credentials: &Credentials) -> Result<String> {
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "authorization_api"),
        ("client_id", &credentials.id),
        ("client_secret", &credentials.secret),
    ];
    let address = format!("http://127.0.0.1:{http}/totvs.rac/connect/token");
    let (web, begun) = (reqwest::Client::new(), Mono::now());
    loop {
        match web.post(&address).form(&form).send().await {
            Ok(answer) => {
                let answer: serde_json::Value =
                    answer.json().await.coded(Code::Internal, "the token's answer is no JSON")?;
                let token = answer["access_token"].as_str().map(str::to_owned);
                return token.ok_or_else(|| Error::new(Code::Internal, "no token was given"));
            }
            Err(cause) if begun.elapsed() > Duration::from_secs(20) => {
                return Err(Error::new(Code::Internal, "the server does not answer").because(cause));
            }
            Err(_) => clock::sleep(Duration::from_millis(50)).await,
        }
    }
}
