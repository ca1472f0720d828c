//! A network that lets nothing out but through a proxy with a login: tinyproxy, between the agent and both fronts.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use runtime::clock::{self, Mono};
use sim::servers;
use tokio::net::TcpStream;

use super::{Setting, WAIT};

/// The proxy's process; ends when dropped.
pub(crate) struct Tinyproxy {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Tinyproxy {
    /// Lets whoever shows that login through.
    pub(crate) async fn start(user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = servers::free_port().unwrap();
        let log = folder.path().join("proxy.log");
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\nBasicAuth {user} {password}\n\
             LogFile \"{}\"\nLogLevel Connect\n",
            log.display()
        );
        let file = folder.path().join("proxy.conf");
        fs::write(&file, config).unwrap();
        let mut tinyproxy = Command::new("tinyproxy");
        tinyproxy.arg("-d").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = tinyproxy.spawn().expect("tinyproxy is missing; ./test.sh installs it");
        let begun = Mono::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begun.elapsed() < WAIT, "no proxy: {}", read(&log));
            clock::sleep(std::time::Duration::from_millis(20)).await;
        }
        Self { child, port, folder }
    }

    /// How often it was asked for a tunnel to that port.
    pub(crate) fn tunnels(&self, host: &str, port: u16) -> usize {
        let log = read(&self.folder.path().join("proxy.log"));
        log.lines().filter(|line| line.contains(&format!("CONNECT {host}:{port} "))).count()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl Setting {
    /// Starts the agent again with another line of its configuration.
    async fn with(&mut self, from: &str, to: &str) {
        self.world.stop_agent().await;
        let path = self.world.cloud.folder.path().join("agent.toml");
        let config = fs::read_to_string(&path).unwrap();
        assert!(config.contains(from), "{config}");
        fs::write(path, config.replace(from, to)).unwrap();
        self.world.start_agent();
    }
}

#[tokio::test]
async fn rest_and_grpc_go_through_a_proxy_with_a_login_and_a_wrong_one_is_told() {
    let proxy = Tinyproxy::start("ana", "pass-1").await;
    let mut setting = Setting::new("localhost", Some("ca.pem")).await;
    setting.world.equal(WAIT).await;
    assert_eq!(proxy.tunnels("localhost", setting.grpc.port), 0);
    let line = |login: &str| format!("proxy = 'http://{login}@127.0.0.1:{}'\n", proxy.port);
    setting.with("hosts = [", &format!("{}hosts = [", line("ana:wr0ng-one"))).await;
    setting.world.status_says("the proxy (cloud.proxy) refuses the login", WAIT).await;
    assert_eq!(proxy.tunnels("localhost", setting.grpc.port), 0, "nothing goes around it");
    setting.with(&line("ana:wr0ng-one"), &line("ana:%70ass-1")).await;
    let change = "UPDATE t SET v = 'changed' WHERE id <= 10; DELETE FROM t WHERE id > 490";
    setting.world.erp.run(change).await.unwrap();
    setting.world.equal(WAIT).await;
    assert!(
        proxy.tunnels("localhost", setting.http.port) > 0
            && proxy.tunnels("localhost", setting.grpc.port) > 0
    );
    for words in ["wr0ng-one", "%70ass", "pass-1"] {
        assert!(!setting.world.logs().contains(words), "{words} in a log");
    }
}
