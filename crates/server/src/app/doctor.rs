//! Doctor: looks over what a server stands on: configuration, data folder, key, store (a file or a database), disk, ports,
//! addresses, certificates, clock, webhooks, mail server, signing keys.
//!
//! Promises: works without a running server and beside one; each finding that is worse than a note says what to do; every
//! key of the configuration that cannot be used is told, not the first alone.
//! Never: changes anything; opens the store to write; sends a mail.

use std::{
    fmt::Display,
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use protocol::{Code, Error, Result, limits};
use runtime::{
    certificate,
    clock::Wall,
    dial, files,
    finding::{Finding, Grade, Wish, both, words},
    telemetry, tls,
};

use super::bind;
use crate::{
    config::{Addresses, ServerConfig},
    model::alert::{MailServer, MailTls},
    service::alerts,
};

mod store;

const CONFIG: &str = "config";
const DATA: &str = "data";
const KEY: &str = "key";
const STORE: &str = "store";
const DISK: &str = "disk";
const PORT: &str = "port";
const ADDRESS: &str = "address";
const CLOCK: &str = "clock";
const WEBHOOKS: &str = "webhooks";
const MAIL: &str = "mail";
const SIGNING_KEY: &str = "signing-key";
const VERSION: &str = "version";

/// What may be looked at here.
pub const TOPICS: [&str; 13] = [
    CONFIG,
    DATA,
    KEY,
    STORE,
    DISK,
    PORT,
    ADDRESS,
    certificate::TOPIC,
    CLOCK,
    WEBHOOKS,
    MAIL,
    SIGNING_KEY,
    VERSION,
];

/// Less free than this is soon none.
const LITTLE: u64 = 1 << 30;

/// Looks everything over that is wished for.
pub async fn doctor(config: &ServerConfig, wish: &Wish) -> Vec<Finding> {
    let mut findings = configuration(config);
    findings.push(Finding::ok(VERSION, "server", both(env!("CARGO_PKG_VERSION"))));
    let running = is_held(&config.data);
    let mut mail_server = None;
    match Finding::closed_folder(DATA, &config.data) {
        Some(closed) => findings.push(closed),
        None => {
            findings.push(data_folder(&config.data, running));
            if wish.wants(&store::TOPICS) {
                let (found, server) = Box::pin(store::looked(config, wish.patience)).await;
                findings.extend(found);
                mail_server = server;
            }
        }
    }
    findings.push(disk(&config.data));
    findings.extend(certificates(config));
    if wish.wants(&[PORT]) {
        let ports = [("http_listen", config.http_listen), ("grpc_listen", config.grpc_listen)];
        for (key, address) in ports {
            findings.push(port(key, address, running).await);
        }
    }
    if wish.wants(&[MAIL])
        && let Some(server) = mail_server
    {
        findings.extend(Box::pin(mail(config, server, wish.patience)).await);
    }
    let addresses = config.addresses(config.http_listen, config.grpc_listen);
    if wish.wants(&[ADDRESS, certificate::TOPIC, CLOCK])
        && let Ok(addresses) = addresses
    {
        if running {
            findings.extend(Box::pin(reached(&addresses, wish.patience)).await);
        } else {
            let silent = words(
                "not called: no server runs on this data folder",
                "não chamado: nenhum servidor roda nesta pasta de dados",
            );
            findings.push(Finding::note(ADDRESS, addresses.http, silent));
        }
    }
    findings.retain(|finding| wish.wants(&[finding.topic]));
    findings
}

fn configuration(config: &ServerConfig) -> Vec<Finding> {
    let level =
        telemetry::check(&config.log.level).map_err(|words| Error::new(Code::ConfigInvalid, words));
    let addresses = config.addresses(config.http_listen, config.grpc_listen);
    let checks: [(&str, Result<()>); 7] = [
        ("public_http, public_grpc", addresses.map(drop)),
        ("store", config.site().map(drop)),
        ("tls", tls::load(&config.tls).map(drop)),
        ("retention", config.retention.check()),
        ("webhooks", config.calling("").map(drop)),
        ("alerts", config.alerting("").map(drop)),
        ("log.level", level),
    ];
    let faults = checks.iter().filter_map(|(of, checked)| Some((of, checked.as_ref().err()?)));
    let found: Vec<_> = faults.map(|(of, error)| Finding::error(CONFIG, of, error)).collect();
    if found.is_empty() {
        let good = words("it can be used", "pode ser usada");
        return vec![Finding::ok(CONFIG, "server.toml", good)];
    }
    found
}

/// Whether a server has the data folder; looked at without waiting.
fn is_held(data: &Path) -> bool {
    let lock = File::options().write(true).open(data.join("server.lock"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn data_folder(data: &Path, running: bool) -> Finding {
    let place = data.display().to_string();
    if let Some(open) = Finding::open_folder(DATA, data) {
        return open;
    }
    if !data.exists() {
        let new = words("it is made at the first start", "será criada no primeiro início");
        return Finding::note(DATA, place, new);
    }
    let found = match running {
        true => words("a server runs on it", "um servidor está rodando nela"),
        false => words("no server runs on it", "nenhum servidor está rodando nela"),
    };
    Finding::ok(DATA, place, found)
}

fn disk(data: &Path) -> Finding {
    let there = data.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."));
    let place = data.display();
    let Some(free) = files::free(there) else {
        let silent = words(
            "this system does not tell what is free",
            "este sistema não informa o espaço livre",
        );
        return Finding::note(DISK, place, silent);
    };
    room(place, free)
}

fn room(place: impl Display, free: u64) -> Finding {
    let free_mib = free >> 20;
    let found = words(format!("{free_mib} MiB are free"), format!("{free_mib} MiB livres"));
    let todo = words(
        "Make room: on a full disk the server refuses every write; nothing acknowledged is lost.",
        "Libere espaço: com o disco cheio o servidor recusa toda gravação; nada confirmado se perde.",
    );
    if free < limits::STORE_FREE_BYTES {
        return Finding::mend(DISK, place, (found, todo)).coded(Code::DiskFull);
    }
    if free < LITTLE {
        return Finding::warning(DISK, place, (found, todo));
    }
    Finding::ok(DISK, place, found)
}

/// The certificates named in the configuration: dates, and whether the own one is made out to the public addresses.
fn certificates(config: &ServerConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    let named = [
        (certificate::TOPIC, Some(config.tls.certificate_file.clone())),
        (STORE, config.store.ca_file.clone()),
        (WEBHOOKS, config.webhooks.ca_file.clone()),
        (MAIL, config.alerts.mail_ca_file.clone()),
    ];
    for (topic, path) in named {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        // A file that cannot be read is told with the configuration.
        let read = path.and_then(|path| fs::read(&path).ok().map(|pem| (path, pem)));
        let Some((path, pem)) = read else { continue };
        let place = path.display().to_string();
        match certificate::first_of_pem(&pem) {
            Some(der) => {
                found.push(Finding { topic, ..certificate::finding(&place, &der, Wall::now()) });
                if topic == certificate::TOPIC {
                    found.extend(names(config, &place, &der));
                }
            }
            None if topic == certificate::TOPIC => {}
            None => {
                let none = Error::new(Code::ConfigInvalid, "it holds no certificate in PEM form");
                found.push(Finding::error(topic, place, &none));
            }
        }
    }
    found
}

fn names(config: &ServerConfig, place: &str, der: &[u8]) -> Vec<Finding> {
    let of = |address: &String| {
        let uri: http::Uri = address.parse().ok()?;
        let host = uri.host()?.to_owned();
        (!certificate::is_for(der, &host)?).then(|| {
            let found = words(
                format!("it is not made out to {host}, which senders dial"),
                format!("não foi emitido para {host}, que os remetentes chamam"),
            );
            let todo = words(
                "Have a certificate made out to the hosts of public_http and public_grpc.",
                "Obtenha um certificado emitido para os hosts de public_http e public_grpc.",
            );
            Finding::mend(certificate::TOPIC, place, (found, todo))
        })
    };
    [&config.public_http, &config.public_grpc].into_iter().filter_map(of).collect()
}

/// Whether a server can listen there, or does.
async fn port(key: &str, address: SocketAddr, running: bool) -> Finding {
    let of = format!("{key} {address}");
    match bind(key, address).await {
        Ok(_) if running => {
            let found = words("nothing listens there", "nada escuta ali");
            let todo = words(
                "The server that runs was started with another configuration; start it again.",
                "O servidor em execução foi iniciado com outra configuração; reinicie-o.",
            );
            Finding::warning(PORT, of, (found, todo))
        }
        Ok(_) => Finding::ok(PORT, of, words("it is free", "está livre")),
        Err(error) if error.code == Code::AddressInUse && running => {
            Finding::ok(PORT, of, words("the server listens there", "o servidor escuta ali"))
        }
        Err(error) => Finding::error(PORT, of, &error),
    }
}

/// Greets the mail server that alerts go through.
async fn mail(config: &ServerConfig, server: MailServer, patience: Duration) -> Option<Finding> {
    // What is wrong with the authority's file is told beside this.
    let ca_pem = config.alerting("").ok()?.ca_pem;
    let (place, tls) = (format!("{}:{}", server.host, server.port), server.tls);
    Some(match alerts::greeted(server, ca_pem, patience).await {
        Ok(()) if tls == MailTls::None => {
            Finding::ok(MAIL, place, words("it answers, without TLS", "responde, sem TLS"))
        }
        Ok(()) => Finding::ok(MAIL, place, words("it answers under TLS", "responde sob TLS")),
        // Mails wait and are tried again for half a day; the server works meanwhile.
        Err(words) => {
            let unsent = Error::new(Code::MailUnsent, words);
            Finding::error(MAIL, place, &unsent).graded(Grade::Warning)
        }
    })
}

/// Calls the public address as a sender would, from this machine.
async fn reached(addresses: &Addresses, patience: Duration) -> Vec<Finding> {
    tls::install_provider();
    let address = format!("{}/api/v1/services", addresses.http);
    let client = reqwest::Client::builder().no_proxy().timeout(patience).tls_info(true).build();
    let answer = match client {
        Ok(client) => client.get(&address).send().await,
        Err(cause) => Err(cause),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(cause) => {
            let why = dial::why(&cause).unwrap_or("no answer came");
            let todo = words(
                "Where senders reach it all the same (another network, an authority that they name in cloud.ca_file), all is well; else look at DNS, front and firewall.",
                "Se os remetentes o alcançam mesmo assim (outra rede, uma autoridade que eles indicam em cloud.ca_file), está tudo certo; senão, veja DNS, proxy reverso e firewall.",
            );
            let found = words(
                format!("not reached from this machine: {why}"),
                format!("não alcançado desta máquina: {why}"),
            );
            return vec![Finding::warning(ADDRESS, address, (found, todo))];
        }
    };
    let mut found = Vec::new();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>();
    if let Some(der) = info.and_then(|info| info.peer_certificate()) {
        found.push(certificate::finding(&addresses.http, der, Wall::now()));
    }
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    found.push(told(addresses, &address, (status.as_u16(), &body)));
    found
}

/// Whether what answers there is this server.
fn told(addresses: &Addresses, address: &str, (status, body): (u16, &str)) -> Finding {
    if status == 200 && body.contains(&addresses.grpc) {
        let good = words("the registry answers there", "o registry responde ali");
        return Finding::ok(ADDRESS, address, good);
    }
    let found = words(
        format!("what answers there (status {status}) is not this server's registry"),
        format!("o que responde ali (status {status}) não é o registry deste servidor"),
    );
    let todo = words(
        "Let the front before this server pass /api, /totvs.rac and gRPC on to it; or mend public_http and public_grpc.",
        "Faça o proxy reverso à frente deste servidor repassar /api, /totvs.rac e gRPC a ele; ou corrija public_http e public_grpc.",
    );
    Finding::mend(ADDRESS, address, (found, todo)).graded(match status {
        // It drains or starts.
        503 => Grade::Warning,
        _ => Grade::Mend,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{App, fixture},
        *,
    };

    #[test]
    fn a_disk_that_fills_up_is_a_warning_and_a_full_one_is_to_be_mended() {
        let graded = |free| room("data", free).grade;
        assert_eq!(graded(limits::STORE_FREE_BYTES - 1), Grade::Mend);
        assert_eq!(room("data", limits::STORE_FREE_BYTES - 1).code, Some(Code::DiskFull));
        assert_eq!(
            (graded(limits::STORE_FREE_BYTES), graded(LITTLE - 1)),
            (Grade::Warning, Grade::Warning)
        );
        assert_eq!(graded(LITTLE), Grade::Ok);
    }

    fn wish(only: &[&str]) -> Wish {
        let only = only.iter().map(|topic| (*topic).to_owned()).collect();
        Wish { only, patience: Duration::from_secs(5) }
    }

    fn of<'a>(findings: &'a [Finding], topic: &str) -> Vec<&'a Finding> {
        findings.iter().filter(|found| found.topic == topic).collect()
    }

    #[tokio::test]
    async fn every_key_of_a_configuration_that_cannot_be_used_is_told() {
        let home = tempfile::tempdir().unwrap();
        let mut config = ServerConfig {
            public_http: "http://malote.example".into(),
            allow_private: false,
            ..fixture::config(home.path())
        };
        config.log.level = "loud,,=".into();
        config.tls.key_file = home.path().join("none.key");
        config.webhooks.ca_file = Some(home.path().join("none.pem"));
        config.alerts.again_hours = 0;
        config.store.password_file = Some(home.path().join("none.password"));
        let findings = doctor(&config, &wish(&[CONFIG])).await;
        let told: Vec<&str> = findings.iter().map(|found| found.of.as_str()).collect();
        for key in ["public_http, public_grpc", "store", "tls", "webhooks", "alerts"] {
            assert!(told.contains(&key), "{key}: {findings:?}");
        }
        assert!(findings.iter().all(|found| found.grade == Grade::Mend && found.todo.is_some()));
        let good = doctor(&fixture::config(home.path()), &wish(&[CONFIG])).await;
        assert_eq!(good.first().map(|found| found.grade), Some(Grade::Ok), "{good:?}");
    }

    #[tokio::test]
    async fn a_running_server_is_well_and_one_without_its_key_is_not() {
        let running = fixture::Running::start().await;
        let data = running.folder.path();
        let config = ServerConfig {
            http_listen: running.app.http,
            grpc_listen: running.app.grpc,
            ..fixture::config(data)
        };
        let findings = doctor(&config, &wish(&[])).await;
        for topic in [CONFIG, KEY, STORE, PORT, ADDRESS, CLOCK, SIGNING_KEY] {
            let found = of(&findings, topic);
            let well = found.iter().all(|found| found.grade <= Grade::Note);
            assert!(!found.is_empty() && well, "{topic}: {findings:?}");
        }
        fs::rename(data.join("master.key"), data.join("elsewhere")).unwrap();
        let findings = doctor(&config, &wish(&[KEY])).await;
        assert_eq!(of(&findings, KEY)[0].grade, Grade::Mend, "{findings:?}");
        assert!(!data.join("master.key").exists(), "looking makes no key");
    }

    /// Answers one who comes as a mail server does; gives what was said to it.
    async fn postman(listener: tokio::net::TcpListener) -> Vec<String> {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio::io::BufStream::new(stream);
        let mut said = Vec::new();
        let mut answer = "220 mail.example ESMTP\r\n";
        loop {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return said;
            }
            answer = if line.starts_with("EHLO") { "250 mail.example\r\n" } else { "221 bye\r\n" };
            said.push(line);
        }
    }

    #[tokio::test]
    async fn the_mail_server_is_greeted_without_a_mail_and_one_that_is_silent_is_told() {
        let running = fixture::Running::start().await;
        let home = tempfile::tempdir().unwrap();
        let mut config = fixture::config(running.folder.path());
        assert!(doctor(&config, &wish(&[MAIL])).await.is_empty(), "none is set");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let set = alerts::NewMailServer {
            host: "127.0.0.1".into(),
            port: Some(port),
            tls: MailTls::None,
            from: "malote@loja.example".into(),
            login: None,
        };
        running.app.services.alerts.set_mail_server(set).await.unwrap();
        let wish = wish(&[MAIL]);
        let (said, told) = tokio::join!(postman(listener), doctor(&config, &wish));
        assert_eq!(told.first().map(|found| found.grade), Some(Grade::Ok), "{told:?}");
        assert!(said.len() == 2 && said[1].starts_with("QUIT"), "{said:?}");
        let told = doctor(&config, &wish).await;
        let silent = told.first().unwrap();
        let seen = (silent.grade, silent.code, silent.found.en.as_str());
        assert_eq!(seen, (Grade::Warning, Some(Code::MailUnsent), "nothing listens there"));
        let file = home.path().join("ca.pem");
        fs::write(&file, "no PEM").unwrap();
        config.alerts.mail_ca_file = Some(file);
        let told = doctor(&config, &wish).await;
        assert!(told.iter().any(|found| found.code == Some(Code::ConfigInvalid)), "{told:?}");
    }

    #[tokio::test]
    async fn an_old_store_says_migrate_and_a_port_that_another_has_is_told() {
        let home = tempfile::tempdir().unwrap();
        let config = fixture::config(home.path());
        App::start(&config).await.unwrap().stop().await;
        let db = rusqlite::Connection::open(config.store_file()).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = ServerConfig { http_listen: taken.local_addr().unwrap(), ..config };
        let findings = doctor(&config, &wish(&[STORE, PORT])).await;
        let todo = of(&findings, STORE)[0].todo.clone().unwrap();
        assert!(todo.en.contains("malote server migrate"), "{findings:?}");
        let ports = of(&findings, PORT);
        assert!(ports.iter().any(|found| found.code == Some(Code::AddressInUse)), "{findings:?}");
    }
}
