//! TLS, and the doubt whether a port of this machine speaks it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spec::Kind;
use testkit::command::Run;
use testkit::image::busybox;
use testkit::needs;
use testkit::registry::{Registry, free_port};
use testkit::wait;

use crate::place::Place;

/// A registry behind TLS with a certificate of its own authority; with `clients` it wants one of its clients'.
struct Secure {
    child: Child,
    port: u16,
    authority: PathBuf,
    client: (PathBuf, PathBuf),
}

impl Secure {
    /// Serves what `data` (another registry's storage) has.
    fn start(dir: &Path, data: &Path, clients: bool) -> Self {
        let file = |name: &str| dir.join(name);
        let text = |name: &str| file(name).display().to_string();
        let openssl = testkit::place::program("openssl").unwrap();
        let run = |line: &str| {
            let line = line.replace("@", &format!("{}/", dir.display()));
            Run::new(&openssl).args(line.split(' ').collect::<Vec<_>>()).ok();
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        run(&format!("req -x509 {key} -keyout @ca.key -out @ca.crt -days 2 -subj /CN=ours"));
        for (name, extension) in
            [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
        {
            fs::write(file("ext"), extension).unwrap();
            run(&format!("req -new {key} -keyout @{name}.key -out @{name}.csr -subj /CN={name}"));
            let signed = format!("x509 -req -in @{name}.csr -CA @ca.crt -CAkey @ca.key -CAcreateserial");
            run(&format!("{signed} -days 2 -extfile @ext -out @{name}.crt"));
        }
        let port = free_port();
        let clients =
            if clients { format!("\n    clientcas:\n      - {}", text("ca.crt")) } else { String::new() };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n  tls:\n    certificate: {}\n    key: {}{clients}\n",
            data.display(),
            text("server.crt"),
            text("server.key"),
        );
        fs::write(file("secure.yml"), config).unwrap();
        let child = Command::new(testkit::place::program("docker-registry").unwrap())
            .arg("serve")
            .arg(file("secure.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let up = || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
        wait::eventually(Duration::from_secs(20), "the registry listens", up);
        let client = (file("client.crt"), file("client.key"));
        Self { child, port, authority: file("ca.crt"), client }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills a storage with busybox as `x:v1`; the registry that did it, and the storage.
fn storage(place: &Place) -> PathBuf {
    let data = place.dir.path().join("storage");
    let port = free_port();
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    let file = place.dir.path().join("plain.yml");
    fs::write(&file, config).unwrap();
    let mut child = Command::new(testkit::place::program("docker-registry").unwrap())
        .arg("serve")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let up = || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
    wait::eventually(Duration::from_secs(20), "the registry listens", up);
    // Pulled from a peer and pushed by ourselves.
    let peer = testkit::peer::Peer::start();
    let reference = peer.serve("x", "v1", busybox());
    let source = Place::new();
    let target = source.pull(&reference).unwrap().target;
    let push = image::push::Push {
        reference: format!("127.0.0.1:{port}/x:v1").parse().unwrap(),
        target,
        platforms: Vec::new(),
        non_distributable: false,
        // Nothing is said about the scheme: this port of loopback speaks http.
        registry: image::registry::Config::default(),
    };
    source.block_on(image::push::run(&source.ctx, &source.services, push, None)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    data
}

fn hosts(place: &Place, port: u16, text: &str) -> Option<String> {
    let dir = place.dir.path().join("certs.d").join(format!("127.0.0.1_{port}_"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("hosts.toml"), text).unwrap();
    Some(place.dir.path().join("certs.d").display().to_string())
}

#[test]
fn a_port_of_this_machine_is_plain_or_not_as_it_answers() {
    needs!(root, overlayfs, program "docker-registry", program "openssl");
    let place = Place::new();
    let registry = Registry::start();
    let reference = registry.push("x", "v1", &busybox());
    let mut order = place.order(&reference, "overlayfs");
    order.registry.default_scheme = None;
    place.run(order).unwrap();
    let data = storage(&place);
    let secure = Secure::start(place.dir.path(), &data, false);
    let mut order = place.order(&format!("127.0.0.1:{}/x:v1", secure.port), "overlayfs");
    order.registry.default_scheme = None;
    place.run(order).unwrap();
}

#[test]
fn a_certificate_is_checked_against_the_authorities_of_hosts_toml() {
    needs!(root, overlayfs, program "docker-registry", program "openssl");
    let place = Place::new();
    let data = storage(&place);
    let secure = Secure::start(place.dir.path(), &data, true);
    let url = format!("https://127.0.0.1:{}", secure.port);
    let order = |text: &str| {
        let mut order = place.order(&format!("127.0.0.1:{}/x:v1", secure.port), "overlayfs");
        order.registry.default_scheme = None;
        order.registry.hosts_dir = hosts(&place, secure.port, text);
        order.registry.limits.retries = 0;
        order
    };
    let error = place.run(order(&format!("server = \"{url}\""))).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.text().contains("certificate"), "{error}");
    let authority = secure.authority.display();
    let error = place.run(order(&format!("server = \"{url}\"\nca = \"{authority}\""))).unwrap_err();
    // With TLS 1.3 the refusal comes after the handshake, and so may the word for it.
    assert_eq!(error.kind(), Kind::Unavailable, "it wants ours: {error}");
    let (certificate, key) = (secure.client.0.display(), secure.client.1.display());
    let pair = format!("client = [[\"{certificate}\", \"{key}\"]]");
    place.run(order(&format!("server = \"{url}\"\nca = \"{authority}\"\n{pair}"))).unwrap();
    place.run(order(&format!("server = \"{url}\"\nskip_verify = true\n{pair}"))).unwrap();
    let error = place.run(order(&format!("server = \"{url}\"\nca = \"/nowhere.pem\""))).unwrap_err();
    assert!(error.text().contains("/nowhere.pem"), "{error}");
}

#[test]
fn an_http_endpoint_with_tls_settings_falls_back_to_http() {
    needs!(root, overlayfs, program "docker-registry");
    let (place, registry) = (Place::new(), Registry::start());
    let reference = registry.push("x", "v1", &busybox());
    let text = format!("server = \"http://{}\"\nskip_verify = true", registry.host());
    let mut order = place.order(&reference, "overlayfs");
    order.registry.hosts_dir = hosts(&place, registry.address().port(), &text);
    place.run(order).unwrap();
}
