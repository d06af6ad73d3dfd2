//! Debian's `docker-registry` on a loopback port with storage of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::http::{Request, Response};
use crate::image::{Blob, Image};
use crate::{place, wait};

/// The user that [`Registry::with_password`] lets in.
pub const USER: &str = "berth";

/// The password of [`USER`].
pub const PASSWORD: &str = "harbour";

/// [`USER`] and the bcrypt hash of [`PASSWORD`], as a line of an htpasswd file.
const HTPASSWD: &str = "berth:$2y$05$abcdefghijklmnopqrstuuZ9hITkhSjgdPh1azpD9e5XbVlHeIfui\n";

/// The Authorization field of [`USER`] and [`PASSWORD`].
const BASIC: &str = "Basic YmVydGg6aGFyYm91cg==";

/// A registry that ends when dropped.
pub struct Registry {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
    password: bool,
}

impl Registry {
    /// Starts a registry that anyone may use.
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// Starts a registry that wants [`USER`] and [`PASSWORD`] for everything.
    pub fn with_password() -> Self {
        Self::launch(true)
    }

    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stores `image` as `name:tag` and returns the whole reference.
    pub fn push(&self, name: &str, tag: &str, image: &Image) -> String {
        for blob in &image.blobs {
            self.push_blob(name, blob);
        }
        for manifest in &image.manifests {
            let last = std::ptr::eq(manifest, image.top());
            let word = if last { tag } else { &manifest.digest };
            let request = Request::new("PUT", &format!("/v2/{name}/manifests/{word}"))
                .header("content-type", &manifest.media_type)
                .body(manifest.bytes.clone());
            let answer = self.send(request);
            assert_eq!(answer.status, 201, "store a manifest: {}", String::from_utf8_lossy(&answer.body));
        }
        format!("{}/{name}:{tag}", self.address)
    }

    /// Sends a request with the credentials that the registry wants.
    pub fn send(&self, request: Request) -> Response {
        let request = if self.password { request.header("authorization", BASIC) } else { request };
        request
            .send(self.address)
            .unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.path))
    }

    /// A `hosts.toml` tree under `dir` that makes this registry the mirror of `host`; returns the tree's root.
    pub fn mirror_of(&self, host: &str, dir: &Path) -> PathBuf {
        mirror(host, &format!("http://{}", self.address), dir)
    }

    fn push_blob(&self, name: &str, blob: &Blob) {
        let place = format!("/v2/{name}/blobs/{}", blob.digest);
        if self.send(Request::new("HEAD", &place)).status == 200 {
            return;
        }
        let answer = self.send(Request::new("POST", &format!("/v2/{name}/blobs/uploads/")));
        assert_eq!(answer.status, 202, "begin an upload: {}", String::from_utf8_lossy(&answer.body));
        let location = &answer.headers["location"];
        let path = location.find("/v2/").map(|at| &location[at..]).expect("the upload has a path");
        let mark = if path.contains('?') { '&' } else { '?' };
        let request = Request::new("PUT", &format!("{path}{mark}digest={}", blob.digest))
            .header("content-type", "application/octet-stream")
            .body(blob.bytes.clone());
        let answer = self.send(request);
        assert_eq!(answer.status, 201, "store a blob: {}", String::from_utf8_lossy(&answer.body));
    }

    fn launch(password: bool) -> Self {
        let program = place::program("docker-registry").expect("docker-registry is installed");
        // A free port can be taken by another process before the registry binds it; then the next one is tried.
        for _ in 0..5 {
            let dir = place::temp();
            let port = free_port();
            fs::write(dir.path().join("config.yml"), config(dir.path(), port, password))
                .expect("write its config");
            fs::write(dir.path().join("htpasswd"), HTPASSWD).expect("write its users");
            let log = fs::File::create(dir.path().join("log")).expect("make its log");
            let mut child = Command::new(&program)
                .arg("serve")
                .arg(dir.path().join("config.yml"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("duplicate the log"))
                .stderr(log)
                .spawn()
                .expect("start docker-registry");
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let up = wait::within(Duration::from_secs(20), || {
                let died = matches!(child.try_wait(), Ok(Some(_)));
                let answers = Request::new("GET", "/v2/").send(address).is_ok();
                (died || answers).then_some(answers && !died)
            });
            if up == Some(true) {
                return Self { child, dir, address, password };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry did not start on any of five ports");
    }

    /// What the registry has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `hosts.toml` tree under `dir` that makes `url` the mirror of `host`; returns the tree's root.
pub fn mirror(host: &str, url: &str, dir: &Path) -> PathBuf {
    let root = dir.join("certs.d");
    fs::create_dir_all(root.join(host)).expect("make the host's directory");
    let text = format!("[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    fs::write(root.join(host).join("hosts.toml"), text).expect("write hosts.toml");
    root
}

/// A port of the loopback interface that nobody listens on just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn config(dir: &Path, port: u16, password: bool) -> String {
    let dir = dir.display();
    let auth = if password {
        format!("auth:\n  htpasswd:\n    realm: berth\n    path: {dir}/htpasswd\n")
    } else {
        String::new()
    };
    format!(
        "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {dir}/data\n  delete:\n    enabled: true\n\
         http:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Build, Layer, sha256};
    use crate::needs;
    use crate::tar::Archive;

    #[test]
    fn what_is_pushed_can_be_fetched() {
        needs!(program "docker-registry");
        let registry = Registry::with_password();
        let image = Build::new().layer(Layer::gzip(Archive::new().file("a", 0o644, b"b").finish())).build();
        let reference = registry.push("some/name", "v1", &image);
        assert_eq!(reference, format!("{}/some/name:v1", registry.host()));
        let get = Request::new("GET", "/v2/some/name/manifests/v1").header("accept", &image.top().media_type);
        assert_eq!(sha256(&registry.send(get.clone()).body), image.top().digest);
        assert_eq!(get.send(registry.address()).unwrap().status, 401, "a stranger is turned away");
    }
}
