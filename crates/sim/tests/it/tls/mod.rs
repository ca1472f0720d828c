//! TLS between agent and cloud: the server stands behind fronts that end TLS, as it does in production, under an
//! authority of the tests' own (`ca.pem`; `other_ca.pem` signed nothing), or speaks it itself.

pub(crate) mod proxy;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use runtime::{
    clock::{self, Mono},
    task::{self, Task},
};
use sim::servers;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{
    doctor::{doctor, of},
    whole::{
        cloud::Cloud,
        erp::Erp,
        world::{Plan, World},
    },
};

const WAIT: Duration = Duration::from_secs(40);

/// Ends TLS before one port; certificate `front.pem` is for the name localhost alone.
pub(crate) struct Front {
    pub(crate) port: u16,
    /// Connections whose handshake was good.
    good: Arc<AtomicU32>,
    /// Connections that the caller broke off.
    refused: Arc<AtomicU32>,
    accepting: Task<()>,
}

pub(crate) fn file(name: &str) -> PathBuf {
    sim::servers::crate_folder().join("tests/it/tls").join(name)
}

impl Front {
    pub(crate) async fn before(far: u16, protocols: &[&str]) -> Self {
        runtime::tls::install_provider();
        let certificate = CertificateDer::from_pem_file(file("front.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("front.key")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (good, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let counts = (Arc::clone(&good), Arc::clone(&refused));
        let accepting = task::spawn("front", async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (acceptor, (good, refused)) = (acceptor.clone(), counts.clone());
                drop(task::spawn("call at the front", async move {
                    let Ok(mut near) = acceptor.accept(near).await else {
                        refused.fetch_add(1, Ordering::SeqCst);
                        return;
                    };
                    good.fetch_add(1, Ordering::SeqCst);
                    let mut far = TcpStream::connect(("127.0.0.1", far)).await.unwrap();
                    // How a relayed call ends is of no interest here.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }));
            }
        });
        Self { port, good, refused, accepting }
    }

    fn good(&self) -> u32 {
        self.good.load(Ordering::SeqCst)
    }

    fn refused(&self) -> u32 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Whoever broke off says so before it is seen here.
    async fn refuses(&self) {
        let begun = Mono::now();
        while self.refused() == 0 {
            assert!(begun.elapsed() < WAIT, "nobody broke off");
            clock::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_a_certificate_that_is_not_trusted_and_one_that_is_for_another_name() {
    for (host, authority, topic) in
        [("localhost", "other_ca.pem", "registry"), ("127.0.0.1", "ca.pem", "grpc")]
    {
        let setting = Setting::new(host, Some(authority)).await;
        let (code, findings, all) = doctor(&setting.world, "agent.toml", &["--timeout", "5"]);
        let found = of(&findings, topic, "mend");
        let told = found.iter().any(|found| found.to_string().contains("certificate"));
        assert!(code == Some(4) && told, "{authority}: {all}");
    }
}

struct Setting {
    world: World,
    http: Front,
    grpc: Front,
}

impl Setting {
    /// The whole over TLS; gRPC is published under `grpc_host`, the agent trusts the authority of that file.
    async fn new(grpc_host: &str, authority: Option<&str>) -> Self {
        let url = servers::shared().await.unwrap();
        let erp = Erp::postgres(&url).await;
        erp.run("CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 500) g")
            .await
            .unwrap();
        let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let http = Front::before(ports.0, &["h2", "http/1.1"]).await;
        let grpc = Front::before(ports.1, &["h2"]).await;
        let published = format!(
            "public_http = 'https://localhost:{}'\npublic_grpc = 'https://{grpc_host}:{}'\n",
            http.port, grpc.port
        );
        let cloud = Cloud::start_at(ports, &published, ("LOGIX", &["t"])).await;
        let registry = format!("https://localhost:{}/api/v1/services", http.port);
        let mut lines = "hosts = ['127.0.0.1']\n".to_owned();
        if let Some(name) = authority {
            lines.push_str(&format!("ca_file = '{}'\n", file(name).display()));
        }
        let plan = Plan::new(&url, &["t"]).cloud(registry, &lines);
        Self { world: World::over(cloud, plan, erp), http, grpc }
    }

    /// Another authority, by which the agent starts again.
    async fn trust(&mut self, name: &str) {
        self.world.stop_agent().await;
        let path = self.world.cloud.folder.path().join("agent.toml");
        let config = fs::read_to_string(&path).unwrap().replace("other_ca.pem", name);
        fs::write(path, config).unwrap();
        self.world.start_agent();
    }
}

#[tokio::test]
async fn rows_go_over_tls_under_a_private_authority_for_rest_and_grpc() {
    let mut setting = Setting::new("localhost", Some("ca.pem")).await;
    setting.world.equal(WAIT).await;
    setting
        .world
        .erp
        .run("UPDATE t SET v = 'changed' WHERE id <= 10; DELETE FROM t WHERE id > 490")
        .await
        .unwrap();
    setting.world.equal(WAIT).await;
    assert!(setting.http.good() > 0 && setting.grpc.good() > 0, "a call went around TLS");
    assert_eq!((setting.http.refused(), setting.grpc.refused()), (0, 0));
}

#[tokio::test]
async fn a_server_speaks_tls_itself_for_rest_and_grpc_and_nothing_else_on_its_ports() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run("CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 500) g")
        .await
        .unwrap();
    let (http, grpc) = (servers::free_port().unwrap(), servers::free_port().unwrap());
    let more = format!(
        "public_http = 'https://localhost:{http}'\npublic_grpc = 'https://localhost:{grpc}'\n[tls]\n\
         certificate_file = '{}'\nkey_file = '{}'\n",
        file("front.pem").display(),
        file("front.key").display()
    );
    let cloud = Cloud::start_under((http, grpc), &more, ("LOGIX", &["t"]), &file("ca.pem")).await;
    let registry = format!("https://localhost:{http}/api/v1/services");
    let lines = format!("ca_file = '{}'\n", file("ca.pem").display());
    let mut world = World::over(cloud, Plan::new(&url, &["t"]).cloud(registry, &lines), erp);
    world.equal(WAIT).await;
    for port in [http, grpc] {
        let plain = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let asked = plain.get(format!("http://127.0.0.1:{port}/healthz")).send().await;
        assert!(asked.is_err(), "port {port} answers without TLS: {asked:?}");
    }
    // Whoever says nothing, or anything but TLS, holds up nobody.
    let silent = TcpStream::connect(("127.0.0.1", grpc)).await.unwrap();
    world.erp.run("UPDATE t SET v = 'changed' WHERE id <= 10").await.unwrap();
    world.equal(WAIT).await;
    drop(silent);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_with_a_code_until_the_right_one_is_named() {
    let mut setting = Setting::new("localhost", Some("other_ca.pem")).await;
    setting.world.status_says("\"code\":\"CLOUD_UNREACHABLE\"", WAIT).await;
    setting.http.refuses().await;
    assert_eq!((setting.http.good(), setting.grpc.good()), (0, 0), "a secret may have gone out");
    assert!(setting.world.logs().contains("UnknownIssuer"), "{}", setting.world.logs());
    setting.trust("ca.pem").await;
    setting.world.equal(WAIT).await;
}

#[tokio::test]
async fn a_private_authority_that_nobody_named_is_not_trusted() {
    let mut setting = Setting::new("localhost", None).await;
    setting.world.status_says("\"code\":\"CLOUD_UNREACHABLE\"", WAIT).await;
    setting.http.refuses().await;
    assert_eq!((setting.http.good(), setting.grpc.good()), (0, 0));
}

#[tokio::test]
async fn a_grpc_front_whose_certificate_is_for_another_name_gets_no_row() {
    let mut setting = Setting::new("127.0.0.1", Some("ca.pem")).await;
    setting.world.status_says("\"code\":\"CLOUD_UNREACHABLE\"", WAIT).await;
    assert!(setting.http.good() > 0, "the registry itself is trusted");
    setting.grpc.refuses().await;
    assert_eq!(setting.grpc.good(), 0);
}
