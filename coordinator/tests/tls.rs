//! Certificates: complete sets of files that other programs understand, and that TLS accepts.

use crate::fixtures::*;
use crate::stub::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A directory with an authority, the certificate of `new-york` and that of `anna`.
fn issued() -> TempDir {
    let dir = TempDir::new().unwrap();
    let [ca, out] = ["ca", "out"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    run(&["tls", "ca", "--cluster", "abilene", "--out", &ca]).ok();
    run(&["tls", "agent", "new-york", "--ca-dir", &ca, "--out", &out]).ok();
    run(&["tls", "client", "anna", "--ca-dir", &ca, "--out", &out]).ok();
    dir
}

fn der(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let der = der(path);
    let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn the_files_are_complete_and_only_keys_are_secret() {
    let dir = issued();
    let listed = |name: &str| {
        let mut files: Vec<_> = fs::read_dir(dir.path().join(name))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
            })
            .collect();
        files.sort();
        files
    };
    let modes = |names: &[(&str, u32)]| names.iter().map(|(n, m)| ((*n).to_owned(), *m)).collect::<Vec<_>>();
    let keys: Vec<_> =
        listed("ca").into_iter().chain(listed("out")).filter(|(name, _)| name.contains("key")).map(|(_, mode)| mode).collect();
    assert_eq!(keys, [0o600; 3]);
    assert_eq!(listed("ca"), modes(&[("ca-key.pem", 0o600), ("ca.pem", 0o644)]));
    assert_eq!(
        listed("out"),
        modes(&[
            ("agent-new-york-key.pem", 0o600),
            ("agent-new-york.pem", 0o644),
            ("ca.pem", 0o644),
            ("client-anna-key.pem", 0o600),
            ("client-anna.pem", 0o644),
        ])
    );
    assert_eq!(
        names(&dir.path().join("out/agent-new-york.pem")),
        ["localhost", "[127, 0, 0, 1]", "mesh.tradewind.internal", "spiffe://tradewind/region/new-york"]
    );
    assert_eq!(names(&dir.path().join("out/client-anna.pem")), ["spiffe://tradewind/client/anna"]);
}

#[test]
fn what_is_printed_goes_into_the_agents_configuration() {
    let dir = issued();
    let ca = dir.path().join("ca");
    let out = dir.path().join("elsewhere");
    let text = run(&["tls", "agent", "denver", "--ca-dir", ca.to_str().unwrap(), "--out", out.to_str().unwrap()]).ok();
    let wanted = format!(
        "[mesh.tls]\nca = \"{0}/ca.pem\"\ncertificate = \"{0}/agent-denver.pem\"\nkey = \"{0}/agent-denver-key.pem\"\n",
        out.display()
    );
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn nothing_is_replaced_unless_told_to() {
    let dir = issued();
    let [ca, out] = ["ca", "out"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let before = fs::read(dir.path().join("ca/ca.pem")).unwrap();
    let text = run(&["tls", "ca", "--cluster", "other", "--out", &ca]).failed(1);
    assert!(text.contains("ca.pem exists already") && text.contains("--force"), "{text}");
    assert_eq!(fs::read(dir.path().join("ca/ca.pem")).unwrap(), before);
    // One of the set is enough.
    fs::remove_file(dir.path().join("out/agent-new-york.pem")).unwrap();
    let again = ["tls", "agent", "new-york", "--ca-dir", &ca, "--out", &out];
    let text = run(&again).failed(1);
    assert!(text.contains("agent-new-york-key.pem exists already"), "{text}");
    assert!(!dir.path().join("out/agent-new-york.pem").exists(), "nothing was written");
    run(&[&again[..], &["--force"]].concat()).ok();
    assert!(dir.path().join("out/agent-new-york.pem").exists());
    // A directory that holds another authority is not mixed up with this one.
    let other = dir.path().join("other").to_str().unwrap().to_owned();
    run(&["tls", "ca", "--cluster", "other", "--out", &other]).ok();
    let text = run(&["tls", "agent", "denver", "--ca-dir", &other, "--out", &out]).failed(1);
    assert!(text.contains("ca.pem exists already"), "{text}");
    assert!(!dir.path().join("out/agent-denver-key.pem").exists());
}

#[test]
fn an_authority_is_valid_for_ten_years_and_others_for_one_unless_told_otherwise() {
    let days = |path: &Path| {
        let der = der(path);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let validity = certificate.validity();
        (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400
    };
    let dir = issued();
    assert_eq!(days(&dir.path().join("ca/ca.pem")), 3650);
    for leaf in ["out/agent-new-york.pem", "out/client-anna.pem"] {
        assert_eq!(days(&dir.path().join(leaf)), 365, "{leaf}");
    }
    let [ca, out] = ["ca", "out"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    run(&["tls", "client", "bob", "--ca-dir", &ca, "--out", &out, "--days", "7"]).ok();
    assert_eq!(days(&dir.path().join("out/client-bob.pem")), 7);
}

#[test]
fn keys_are_never_the_same() {
    let (a, b) = (issued(), issued());
    for key in ["ca/ca-key.pem", "out/agent-new-york-key.pem", "out/client-anna-key.pem"] {
        assert_ne!(fs::read(a.path().join(key)).unwrap(), fs::read(b.path().join(key)).unwrap());
    }
}

#[test]
fn a_missing_or_broken_authority_is_named() {
    let dir = TempDir::new().unwrap();
    let at = dir.path().to_str().unwrap();
    let text = run(&["tls", "agent", "denver", "--ca-dir", at, "--out", at]).failed(1);
    assert!(text.contains("cannot read") && text.contains("ca.pem"), "{text}");
    fs::write(dir.path().join("ca.pem"), "hello").unwrap();
    fs::write(dir.path().join("ca-key.pem"), "hello").unwrap();
    let text = run(&["tls", "agent", "denver", "--ca-dir", at, "--out", at]).failed(1);
    assert!(text.contains("cannot issue the certificate"), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was written");
}

/// An agent that speaks TLS and asks for a certificate, with the files of `dir`.
fn https_stub(dir: &Path) -> Stub {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(der(&dir.join("out/ca.pem"))).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![der(&dir.join("out/agent-new-york.pem"))],
            PrivateKeyDer::from_pem_file(dir.join("out/agent-new-york-key.pem")).unwrap(),
        )
        .unwrap();
    Stub::accepting(move |mut tcp, requests| {
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        // A client that is not trusted is told so, and gets no further.
        if connection.complete_io(&mut tcp).is_ok() {
            answer(StreamOwned::new(connection, tcp), Reply::json(json(&status())), requests);
        }
    })
}

#[test]
fn the_certificates_open_an_agent_that_asks_for_them() {
    let dir = issued();
    let stub = https_stub(dir.path());
    let out = dir.path().join("out");
    let child = tradewind(&["status"])
        .env("TRADEWIND_AGENT", format!("https://localhost:{}", stub.address.port()))
        .env("TRADEWIND_CA", out.join("ca.pem"))
        .env("TRADEWIND_CERT", out.join("client-anna.pem"))
        .env("TRADEWIND_KEY", out.join("client-anna-key.pem"))
        .spawn()
        .unwrap();
    assert!(finish(child).ok().starts_with("region       new-york\n"));
}

#[test]
fn strangers_do_not_trust_each_other() {
    let (dir, other) = (issued(), issued());
    let path = |dir: &TempDir, name: &str| dir.path().join("out").join(name).to_str().unwrap().to_owned();
    let ask = |ca: String, client: Option<(String, String)>| {
        let stub = https_stub(dir.path());
        let url = format!("https://localhost:{}", stub.address.port());
        let mut arguments = vec!["status", "--agent", &url, "--ca", &ca];
        if let Some((cert, key)) = &client {
            arguments.extend(["--cert", cert, "--key", key]);
        }
        run(&arguments)
    };
    let client = |dir: &TempDir| Some((path(dir, "client-anna.pem"), path(dir, "client-anna-key.pem")));
    let text = ask(path(&other, "ca.pem"), client(&dir)).failed(3);
    assert!(text.contains("do not trust each other"), "an agent of another authority: {text}");
    let text = ask(path(&dir, "ca.pem"), client(&other)).failed(3);
    assert!(text.contains("do not trust each other"), "a client of another authority: {text}");
    let text = ask(path(&dir, "ca.pem"), None).failed(3);
    assert!(text.contains("do not trust each other"), "no certificate: {text}");
    // A key that is not the certificate's is found before anything is sent.
    let mixed = Some((path(&dir, "client-anna.pem"), path(&other, "client-anna-key.pem")));
    let text = ask(path(&dir, "ca.pem"), mixed).failed(1);
    assert!(text.contains("is not the certificate's private key"), "{text}");
}
