//! A host, its pods and the world outside, as namespaces.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use net::cni::{Call, CniResult, Command, Error, IpNet, NetworkConfig};
use net::netlink::address::{self, Detection};
use net::netlink::link::{self, Veth};
use net::netlink::{Connection, Mac, Protocol, inside};
use serde_json::{Value, json};

/// Longest wait for a connection that is expected.
const WAIT: Duration = Duration::from_secs(5);

/// A namespace that goes when it is dropped.
pub struct Namespace {
    pub path: PathBuf,
    pub fd: OwnedFd,
}

impl Namespace {
    pub fn new(dir: &Path) -> Self {
        let path = net::netns::create(dir).unwrap();
        net::netns::loopback_up(&path).unwrap();
        Self { fd: net::netns::open(&path).unwrap(), path }
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.fd.as_fd(), work).unwrap()
    }

    /// Listens on every address and answers each connection with the address that it came from. Returns the port.
    pub fn serve(&self) -> u16 {
        let (send, port) = mpsc::channel();
        let fd = self.fd.try_clone().unwrap();
        std::thread::spawn(move || {
            inside(fd.as_fd(), || {
                let listener = TcpListener::bind("[::]:0").unwrap();
                send.send(listener.local_addr().unwrap().port()).unwrap();
                // Ends with the test's process.
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let from = stream.peer_addr().unwrap().ip().to_canonical();
                    let _ = stream.write_all(from.to_string().as_bytes());
                }
            })
            .unwrap();
        });
        port.recv().unwrap()
    }

    /// Connects to `address` and says as whom.
    pub fn reach(&self, address: IpAddr, port: u16) -> Option<IpAddr> {
        self.reach_within(address, port, WAIT)
    }

    pub fn reach_within(&self, address: IpAddr, port: u16, limit: Duration) -> Option<IpAddr> {
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), limit).ok()?;
            stream.set_read_timeout(Some(limit)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.parse().ok()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        net::netns::remove(&self.path).unwrap();
    }
}

/// The host of a test, with folders of its own. Fields drop in their order: the namespace is mounted in the folder.
pub struct Host {
    pub netns: Namespace,
    pub dir: tempfile::TempDir,
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Host {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { netns: Namespace::new(&dir.path().join("ns")), dir }
    }

    pub fn pod(&self) -> Namespace {
        Namespace::new(&self.dir.path().join("ns"))
    }

    /// A machine that the host reaches at 192.0.2.2 and 2001:db8::2, itself being .1 and ::1; it knows no way to pods.
    pub fn outside(&self) -> Namespace {
        let outside = self.pod();
        self.netns.run(|| {
            let mut connection = Connection::open(Protocol::Route).unwrap();
            let veth = Veth {
                name: "uplink",
                peer: "eth0",
                netns: Some(outside.fd.as_fd()),
                master: 0,
                mtu: 0,
                mac: Mac::random().unwrap(),
                peer_mac: Mac::random().unwrap(),
            };
            link::add_veth(&mut connection, &veth).unwrap();
            give(&mut connection, "uplink", ["192.0.2.1/24", "2001:db8::1/64"]);
        });
        outside.run(|| {
            let mut connection = Connection::open(Protocol::Route).unwrap();
            give(&mut connection, "eth0", ["192.0.2.2/24", "2001:db8::2/64"]);
        });
        self.netns.run(|| {
            let mut connection = Connection::open(Protocol::Route).unwrap();
            let uplink = link::get(&mut connection, "uplink").unwrap();
            let deadline = Instant::now() + WAIT;
            link::wait_until_running(&mut connection, uplink.index, deadline).unwrap().unwrap();
        });
        outside
    }

    /// The configuration of a network: `bridge` and `host-local` with `10.7.0.0/24` and `fd07::/64`.
    pub fn config(&self, extra: Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br7", "isDefaultGateway": true,
            "ipMasq": true, "ipMasqBackend": "nftables",
            "ipam": {
                "type": "host-local",
                "dataDir": self.dir.path().join("leases"),
                "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]],
            },
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    }

    pub fn call(&self, pod: Option<&Namespace>, id: &str, config: &Value) -> Call {
        Call {
            container_id: id.into(),
            netns: pod.map(|pod| pod.path.clone()),
            ifname: "eth0".into(),
            args: Vec::new(),
            path: vec!["/usr/lib/cni".into()],
            config: NetworkConfig::parse(config.to_string().as_bytes()).unwrap(),
            deadline: Instant::now() + Duration::from_secs(30),
        }
    }

    /// Calls the plugin that `config` names, on the host.
    pub fn run(
        &self,
        command: Command,
        pod: Option<&Namespace>,
        id: &str,
        config: &Value,
    ) -> Result<CniResult, Error> {
        let call = self.call(pod, id, config);
        let plugin = net::plugin::find(&call.config.plugin).unwrap();
        self.netns.run(|| plugin.run(command, &call)).map(Option::unwrap_or_default)
    }

    pub fn add(&self, pod: &Namespace, id: &str, config: &Value) -> CniResult {
        self.run(Command::Add, Some(pod), id, config).unwrap()
    }

    pub fn del(&self, pod: &Namespace, id: &str, config: &Value) {
        self.run(Command::Del, Some(pod), id, config).unwrap();
    }

    /// Names of the host's links, but for those that every namespace has.
    pub fn links(&self) -> Vec<String> {
        let links = self.netns.run(|| link::list(&mut Connection::open(Protocol::Route).unwrap()).unwrap());
        let names = links.into_iter().map(|link| link.name);
        names.filter(|name| name != "lo" && !["ifb0", "ifb1"].contains(&name.as_str())).collect()
    }

    /// What `nft list ruleset` prints on the host.
    pub fn ruleset(&self) -> String {
        self.netns.run(|| testkit::command::Run::new("nft").line("list ruleset").ok())
    }

    /// Files of leases.
    pub fn leases(&self) -> Vec<String> {
        let dir = self.dir.path().join("leases/net");
        let names = std::fs::read_dir(dir).map(|entries| {
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        });
        let mut names = names.unwrap_or_default();
        names.retain(|name| name.parse::<IpAddr>().is_ok());
        names.sort();
        names
    }
}

/// Gives a link its addresses and sets it up.
fn give<const N: usize>(connection: &mut Connection, name: &str, nets: [&str; N]) {
    let link = link::get(connection, name).unwrap();
    for net in nets {
        let net: IpNet = net.parse().unwrap();
        address::add(connection, link.index, net, Detection::Skip).unwrap();
    }
    link::set_up(connection, link.index).unwrap();
}

/// A result as the next plugin of a chain is given it.
pub fn chained(config: &Value, result: &CniResult) -> Value {
    let mut config = config.clone();
    let version = config["cniVersion"].as_str().unwrap().parse().unwrap();
    config["prevResult"] = result.to_json(version).unwrap();
    config
}
