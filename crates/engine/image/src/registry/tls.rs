//! TLS settings to a rustls configuration.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{RequestError, Tls};

/// The machine's own authorities, read once and only when something speaks TLS.
static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();

fn system_roots() -> Arc<RootCertStore> {
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    SYSTEM.get_or_init(load).clone()
}

/// The configuration that `tls` describes.
pub fn config(tls: &Tls) -> Result<ClientConfig, RequestError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| RequestError::Certificate { path: "TLS".into(), what: error.to_string() })?;
    let builder = if tls.skip_verify == Some(true) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    // rustls presents one chain; containerd, too, offers the first that the server's authorities fit.
    let Some((certificate, key)) = tls.clients.first() else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let key_file = key.as_deref().unwrap_or(certificate);
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unusable(key_file, error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(certificate, error))
}

fn roots(tls: &Tls) -> Result<Arc<RootCertStore>, RequestError> {
    let system = system_roots();
    if tls.authorities.is_empty() {
        return Ok(system);
    }
    let mut roots = RootCertStore::clone(&system);
    for path in &tls.authorities {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| unusable(path, error))?;
        }
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RequestError> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, error))?;
    if all.is_empty() { Err(unusable(path, "no certificate in it")) } else { Ok(all) }
}

fn unusable(path: &Path, what: impl std::fmt::Display) -> RequestError {
    RequestError::Certificate { path: path.into(), what: what.to_string() }
}

/// `skip_verify`: any certificate will do, but the handshake must still be signed by it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
