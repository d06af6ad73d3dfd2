//! Proxies of each kind, played by one thread that accepts one connection.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use http_body_util::{BodyExt as _, Empty};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// Accepts one connection and lets `serve` say what it read from it.
fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        serve(stream)
    });
    (port, thread)
}

fn proxies(proxy: String) -> Arc<Proxies> {
    Arc::new(Proxies::from_variables(move |name| (name == "ALL_PROXY").then(|| proxy.clone())))
}

/// The head of a request.
fn head(stream: &mut impl std::io::Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, work).await.unwrap() })
}

fn get(url: &str) -> http::Request<Body> {
    http::Request::get(url).body(body()).unwrap()
}

async fn text(response: http::Response<hyper::body::Incoming>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Plays a SOCKS 5 proxy that wants a password: the host and port that were asked for, and the request that followed.
fn socks(mut stream: TcpStream) -> (String, u16, String) {
    let methods = read(&mut stream, 2)[1];
    assert!(read(&mut stream, methods.into()).contains(&2), "the password is offered");
    stream.write_all(&[5, 2]).unwrap();
    let user = read(&mut stream, 2)[1];
    assert_eq!(read(&mut stream, user.into()), b"me");
    let password = read(&mut stream, 1)[0];
    assert_eq!(read(&mut stream, password.into()), b"s:t");
    stream.write_all(&[1, 0]).unwrap();
    assert_eq!(read(&mut stream, 4), [5, 1, 0, 3], "a name, which the proxy resolves");
    let length = read(&mut stream, 1)[0];
    let host = String::from_utf8(read(&mut stream, length.into())).unwrap();
    let port = read(&mut stream, 2);
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let head = head(&mut stream);
    stream.write_all(ANSWER).unwrap();
    (host, u16::from_be_bytes([port[0], port[1]]), head)
}

#[test]
fn socks5_proxy_resolves_the_name_and_carries_the_request() {
    let (port, server) = server(socks);
    let proxies = proxies(format!("socks5://me:s%3at@127.0.0.1:{port}"));
    let body = run(async {
        let client = plain_through(&proxies, TIMEOUT, &Tls::default()).unwrap();
        text(client.request(get("http://reg.example/v2/")).await.unwrap()).await
    });
    assert_eq!(body, b"hello");
    let (host, port, head) = server.join().unwrap();
    assert_eq!((host.as_str(), port), ("reg.example", 80));
    assert!(head.starts_with("GET /v2/ HTTP/1.1\r\n"), "{head}");
}

/// The stream behind a handshake with a certificate made for this.
fn by_tls(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let made = rcgen::generate_simple_self_signed(["proxy.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert)], key)
        .unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

#[test]
fn https_proxy_is_spoken_to_by_tls() {
    let (port, server) = server(|stream| {
        let mut stream = by_tls(stream);
        let head = head(&mut stream);
        stream.write_all(ANSWER).unwrap();
        stream.flush().unwrap();
        head
    });
    let (proxies, tls) = (proxies(format!("https://127.0.0.1:{port}")), any_certificate());
    let body = run(async {
        let client = plain_through(&proxies, TIMEOUT, &tls).unwrap();
        text(client.request(get("http://reg.example/v2/")).await.unwrap()).await
    });
    assert_eq!(body, b"hello");
    let head = server.join().unwrap();
    assert!(head.starts_with("GET http://reg.example/v2/ HTTP/1.1\r\n"), "{head}");
}

#[test]
fn https_proxy_is_asked_by_tls_for_a_tunnel() {
    let (port, server) = server(|stream| {
        let mut stream = by_tls(stream);
        let head = head(&mut stream);
        stream.write_all(b"HTTP/1.1 502 no\r\n\r\n").unwrap();
        stream.flush().unwrap();
        head
    });
    let (proxies, tls) = (proxies(format!("https://me:x@127.0.0.1:{port}")), any_certificate());
    let error = run(async {
        let client = secure_through(&proxies, TIMEOUT, &tls).unwrap();
        client.request(get("https://reg.example/v2/")).await.unwrap_err()
    });
    assert!(error.is_connect());
    let head = server.join().unwrap();
    assert!(head.starts_with("CONNECT reg.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic bWU6eA==\r\n"), "{head}");
}

#[test]
fn proxy_that_refuses_the_connection_is_an_error_of_connecting() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxies = proxies(format!("socks5://127.0.0.1:{port}"));
    let error = run(async {
        let client = plain_through(&proxies, TIMEOUT, &Tls::default()).unwrap();
        client.request(get("http://reg.example/v2/")).await.unwrap_err()
    });
    assert!(error.is_connect());
    let mut causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
    assert!(causes.any(|cause| cause.to_string().contains("refused")), "{error:?}");
}

fn any_certificate() -> Tls {
    Tls { skip_verify: Some(true), ..Tls::default() }
}
