//! The streaming server's TLS: none, a certificate of its own, or one from files.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ::spec::Error;
use model::{Ctx, Lane, Result};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// The largest certificate file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What takes TLS connections; none when the server speaks plain HTTP.
///
/// # Errors
/// A file cannot be read or is no certificate or key, or the two do not belong together.
pub async fn acceptor(tls: &Tls) -> Result<Option<TlsAcceptor>> {
    let (certificates, key) = match tls.clone() {
        Tls::Off => return Ok(None),
        Tls::SelfSigned => self_signed(super::server::addresses().await.unwrap_or_default())?,
        Tls::Files { cert, key } => {
            Ctx::background()
                .blocking(Lane::Disk, move |_| Ok((certificates(&cert)?, private_key(&key)?)))
                .await?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| Error::invalid(format!("the streaming server's certificate: {error}"));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(wrong)?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn self_signed(addresses: Vec<IpAddr>) -> Result<Pair> {
    let failed = |error: rcgen::Error| Error::internal(format!("cannot make a certificate: {error}"));
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(addresses.iter().map(ToString::to_string));
    names.dedup();
    let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = |error| Error::invalid(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let wrong = |error: &dyn std::fmt::Display| Error::invalid(format!("{}: {error}", path.display()));
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"holds no certificate")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_certificate_of_its_own_can_be_served() {
        assert!(acceptor(&Tls::SelfSigned).await.unwrap().is_some());
        assert!(acceptor(&Tls::Off).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_file_that_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        std::fs::write(&path, "nothing").unwrap();
        let tls = Tls::Files { cert: path.clone(), key: path.clone() };
        let error = acceptor(&tls).await.err().unwrap();
        assert!(error.text().contains("cert.pem: holds no certificate"), "{error}");
    }
}
