//! `containerd registry explain IMAGE`: where an image of the kubelet's comes from as the configuration stands, and what
//! each of these hosts answers.
//!
//! Invariant: no secret is shown: of headers the names, of a login the user.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image::registry::{self, Endpoint, Registry};
use model::pull::{Login, LoginFor, LoginHost};
use model::{Ctx, Error, Result};
use spec::Reference;

use crate::config::Settings;
use crate::cri::Known;
use crate::mirrors;

/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What there is to say of `image`; no host is asked when `offline`.
///
/// # Errors
/// `InvalidArgument` for what is no name; the configuration cannot be used.
pub async fn explain(settings: &Settings, image: &str, offline: bool) -> Result<String> {
    let reference = Reference::familiar(image).map_err(Error::from)?;
    let tables = settings.cri.as_ref().map(|config| config.images.registry.clone()).unwrap_or_default();
    let login = cri::configured_login(&tables.configs);
    let mut config = mirrors::config(&reference, &tables, &settings.hosts_dir)?;
    config.credentials = Arc::new(Known(Arc::clone(&login)));
    config.limits = registry::Limits { answer: ANSWER, connect: ANSWER, retries: 0, ..config.limits };
    let said = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&said);
    config.log = Some(Arc::new(move |line| hear.lock().unwrap_or_else(PoisonError::into_inner).push(line)));
    let ctx = Ctx::background();
    let registry = Registry::open(&ctx, &reference, &config).await?;
    let from = match (&config.endpoints, &*said.lock().unwrap_or_else(PoisonError::into_inner)) {
        (Some(_), _) => "the tables registry.mirrors and configs".to_owned(),
        (None, lines) => match lines.iter().find_map(|line| line.split_once("dir=")) {
            Some((_, dir)) => format!("{dir}/hosts.toml"),
            None => format!("nothing below {}", config.hosts_dir.as_deref().unwrap_or_default()),
        },
    };
    let mut text = format!("image    {reference}\nfrom     {from}\n");
    for (number, endpoint) in (1..).zip(registry.endpoints()) {
        describe(&mut text, number, endpoint, &login)?;
        let asked = match offline {
            true => continue,
            false if endpoint.capabilities.resolve || reference.digest().is_some() => {
                ask(&ctx, &reference, endpoint, &config).await
            }
            false => "is not asked what a tag names".to_owned(),
        };
        line(&mut text, "answer", &asked);
    }
    Ok(text)
}

/// What `endpoint` alone answers.
async fn ask(ctx: &Ctx, reference: &Reference, endpoint: &Endpoint, config: &registry::Config) -> String {
    let alone = registry::Config { endpoints: Some(vec![endpoint.clone()]), ..config.clone() };
    let resolved = match Registry::open(ctx, reference, &alone).await {
        Ok(registry) => registry.resolve().await.map_err(Error::from),
        Err(error) => Err(error),
    };
    match resolved {
        Ok(resolved) => format!("{} {}", resolved.descriptor.digest, resolved.descriptor.media_type),
        Err(error) => error.to_string(),
    }
}

fn describe(text: &mut String, number: usize, endpoint: &Endpoint, login: &LoginFor) -> Result<()> {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{number}. {}{}", endpoint.origin(), endpoint.path);
    let can = endpoint.capabilities;
    let may =
        [(can.resolve, "resolve"), (can.pull, "pull"), (can.push, "push"), (can.referrers, "referrers")];
    let may: Vec<&str> = may.into_iter().filter_map(|(can, word)| can.then_some(word)).collect();
    line(text, "may", &may.join(", "));
    if let Some(registry) = &endpoint.namespace {
        line(text, "mirrors", registry);
    }
    let tls = &endpoint.tls;
    if tls.skip_verify == Some(true) && endpoint.scheme == "https" {
        line(text, "TLS", "any certificate will do");
    }
    for file in &tls.authorities {
        line(text, "CA", &file.display().to_string());
    }
    for (certificate, _) in &tls.clients {
        line(text, "as", &certificate.display().to_string());
    }
    for (name, _) in &endpoint.headers {
        line(text, "header", name);
    }
    if let Some(proxy) = registry::proxy(&endpoint.origin()) {
        line(text, "proxy", &proxy);
    }
    let who = match login(LoginHost::Endpoint(&endpoint.host))? {
        None => "nobody in particular".to_owned(),
        Some(Login::Password { user, .. }) => format!("{user:?}, of the configuration"),
        Some(Login::Token(_)) => "by a token of the configuration".to_owned(),
    };
    line(text, "login", &who);
    Ok(())
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "   {name:<8} {value}");
}
