//! QUIC with mutual TLS over the simulated network: it works, it is the seed's, and the network
//! loses, doubles and refuses what it was told to.

use anyhow::{Context as _, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tradewind_agent::env::Env;
use tradewind_protocol::RegionId;
use tradewind_protocol::pki::{self, Issued, MESH_NAME, Subject, Validity};
use tradewind_sim::entropy::on_fresh_thread;
use tradewind_sim::net::PathQuality;
use tradewind_sim::trace::{Detail, Recording, Summary};
use tradewind_sim::world::{Delay, World};

const PORT: u16 = 7000;
const VALIDITY: Validity = Validity { not_before: 1_767_000_000, not_after: 1_800_000_000 };
/// More than one flight, so that losses are repaired by acknowledgement and by timer.
const PAYLOAD_BYTES: usize = 200_000;

/// A client sends the payload to a server, which sends its length back; over paths of `quality`.
fn transfer(seed: u64, quality: PathQuality) -> Summary {
    on_fresh_thread(seed, || {
        let recording = Recording::start(Detail::Full, None);
        let mut world = World::new(seed, quality);
        let root = world.seed();
        let ca = pki::issue_ca("test", VALIDITY, root.child("ca").bytes()).unwrap();
        let leaf = |name: &str| {
            let subject = Subject::Agent(RegionId::new(name).unwrap(), vec![]);
            pki::issue_leaf(&ca, &subject, VALIDITY, root.child(name).bytes()).unwrap()
        };
        let (server, client, ca_pem) = (leaf("server"), leaf("client"), ca.certificate_pem.clone());
        let to = SocketAddr::new(world.address_of("server"), PORT);
        let done = Rc::new(std::cell::Cell::new(false));
        let serve = {
            let ca_pem = ca_pem.clone();
            move |env: Env| -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>> {
                let (server, ca_pem) = (server.clone(), ca_pem.clone());
                Box::pin(async move {
                    let endpoint = endpoint(&env, &ca_pem, &server).await?;
                    let connection = endpoint.accept().await.context("closed")?.await?;
                    let (mut send, mut receive) = connection.accept_bi().await?;
                    let got = receive.read_to_end(2 * PAYLOAD_BYTES).await?;
                    send.write_all(&(got.len() as u64).to_le_bytes()).await?;
                    send.finish()?;
                    connection.closed().await;
                    Ok(())
                })
            }
        };
        let finished = done.clone();
        let ask = move |env: Env| -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>> {
            let (client, ca_pem, finished) = (client.clone(), ca_pem.clone(), finished.clone());
            Box::pin(async move {
                let endpoint = endpoint(&env, &ca_pem, &client).await?;
                let connection = endpoint.connect(to, MESH_NAME)?.await?;
                let (mut send, mut receive) = connection.open_bi().await?;
                send.write_all(&vec![7; PAYLOAD_BYTES]).await?;
                send.finish()?;
                let answer = receive.read_to_end(8).await?;
                ensure!(answer == (PAYLOAD_BYTES as u64).to_le_bytes(), "all of it arrived");
                finished.set(true);
                connection.close(0u32.into(), b"");
                endpoint.wait_idle().await;
                Ok(())
            })
        };
        world.add_machine("server", Rc::new(serve));
        world.add_machine("client", Rc::new(ask));
        world.set_delay("server", "client", Delay { min: Duration::from_millis(20), max: Duration::from_millis(60) });
        while !done.get() {
            world.step().unwrap();
            assert!(world.elapsed() < Duration::from_secs(60), "the transfer ends");
        }
        drop(world);
        recording.finish()
    })
    .unwrap()
}

async fn endpoint(env: &Env, ca_pem: &str, own: &Issued) -> anyhow::Result<quinn::Endpoint> {
    #[derive(Debug)]
    struct Time(Arc<dyn tradewind_agent::env::Clock>);
    impl TimeProvider for Time {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().as_millis().try_into().ok()?)))
        }
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let roots = Arc::new(roots);
    let chain = vec![CertificateDer::from_pem_slice(own.certificate_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())?;
    let time = Arc::new(Time(env.clock.clone()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), env.crypto.clone()).build()?;
    let server = rustls::ServerConfig::builder_with_details(env.crypto.clone(), time.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    let client = rustls::ClientConfig::builder_with_details(env.crypto.clone(), time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let socket = env.network.bind_udp((std::net::Ipv4Addr::UNSPECIFIED, PORT).into()).await?;
    // quinn's own chance is left alone here: what the agent does not seed, the override of the
    // operating system's entropy does.
    let mut endpoint = quinn::Endpoint::new_with_abstract_socket(
        quinn::EndpointConfig::default(),
        Some(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?))),
        socket,
        Arc::new(quinn::TokioRuntime),
    )?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?)));
    Ok(endpoint)
}

#[test]
fn one_seed_is_one_run_and_another_seed_another() {
    let lossy = PathQuality { loss: 0.05, duplicate: 0.05, ..PathQuality::default() };
    let first = transfer(1, lossy);
    assert_eq!(first, transfer(1, lossy));
    assert_ne!(first.digest, transfer(2, lossy).digest);
    assert!(first.packets > 200 && first.lines > first.packets, "{first:?}");
}

#[test]
fn loss_is_repaired_by_sending_more() {
    let clean = transfer(1, PathQuality::default());
    let lossy = transfer(1, PathQuality { loss: 0.2, ..PathQuality::default() });
    assert!(lossy.packet_bytes > clean.packet_bytes * 11 / 10, "{} against {}", lossy.packet_bytes, clean.packet_bytes);
    assert!(clean.oversized.is_empty() && clean.longest_packet <= 1472, "{clean:?}");
}

#[test]
fn a_narrow_path_is_found_by_probes_and_then_kept_to() {
    let narrow = transfer(1, PathQuality { mtu: 1300, ..PathQuality::default() });
    let probes: u64 = narrow.oversized.values().sum();
    assert!((1..30).contains(&probes), "{probes} of {} packets were too long", narrow.packets);
}

#[test]
fn shares_of_lost_and_doubled_datagrams_are_as_told() {
    let counts = on_fresh_thread(3, || {
        let sink = Shared::default();
        let recording = Recording::start(Detail::Brief, Some(Box::new(sink.clone())));
        let mut world = World::new(3, PathQuality { loss: 0.1, duplicate: 0.2, mtu: 1000, ..PathQuality::default() });
        let to = SocketAddr::new(world.address_of("receiver"), PORT);
        let received = Rc::new(std::cell::Cell::new(0));
        let counter = received.clone();
        world.add_machine(
            "receiver",
            Rc::new(move |env| {
                let counter = counter.clone();
                Box::pin(async move {
                    let socket = env.network.bind_udp((std::net::Ipv4Addr::UNSPECIFIED, PORT).into()).await?;
                    loop {
                        let mut bytes = [0; 2000];
                        let mut meta = [quinn::udp::RecvMeta::default()];
                        let n =
                            std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [std::io::IoSliceMut::new(&mut bytes)], &mut meta)).await?;
                        counter.set(counter.get() + n);
                    }
                })
            }),
        );
        world.add_machine(
            "sender",
            Rc::new(move |env| {
                Box::pin(async move {
                    let socket = env.network.bind_udp((std::net::Ipv4Addr::UNSPECIFIED, PORT).into()).await?;
                    for i in 0..2000 {
                        let contents = &[0; 1001][..if i % 2 == 0 { 1000 } else { 1001 }];
                        socket.try_send(&quinn::udp::Transmit {
                            destination: to,
                            ecn: None,
                            contents,
                            segment_size: None,
                            src_ip: None,
                        })?;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Ok(())
                })
            }),
        );
        while world.elapsed() < Duration::from_secs(4) {
            world.step().unwrap();
        }
        drop(world);
        let summary = recording.finish();
        let text = String::from_utf8(sink.0.borrow().clone()).unwrap();
        let count = |fate: &str| text.lines().filter(|line| line.ends_with(fate)).count();
        assert_eq!(summary.packets, 2000);
        (count(" sent"), count(" lost"), count(" doubled"), count(" oversized"), received.get())
    })
    .unwrap();
    let (sent, lost, doubled, oversized, received) = counts;
    assert_eq!((sent + lost + doubled, oversized), (1000, 1000));
    assert!((60..140).contains(&lost) && (130..230).contains(&doubled), "{counts:?}");
    assert_eq!(received, sent + 2 * doubled);
}

#[test]
fn a_listener_takes_streams_and_a_crashed_machine_takes_none() {
    on_fresh_thread(4, || {
        let mut world = World::new(4, PathQuality::default());
        let to = SocketAddr::new(world.address_of("server"), PORT);
        world.add_machine(
            "server",
            Rc::new(move |env| {
                Box::pin(async move {
                    let mut listener = env.network.bind_tcp((std::net::Ipv4Addr::UNSPECIFIED, PORT).into()).await?;
                    ensure!(listener.local_addr()? == to, "its address is the one that others see");
                    loop {
                        let (mut stream, _) = listener.accept().await?;
                        let byte = stream.read_u8().await?;
                        stream.write_u8(byte + 1).await?;
                    }
                })
            }),
        );
        let answers = Rc::new(std::cell::RefCell::new(vec![]));
        let log = answers.clone();
        world.add_client("client", async move {
            for _ in 0..4 {
                let answer = async {
                    let mut stream = turmoil::net::TcpStream::connect(to).await.ok()?;
                    stream.write_u8(41).await.ok()?;
                    stream.read_u8().await.ok()
                };
                let answer = answer.await;
                log.borrow_mut().push(answer);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        });
        while world.elapsed() < Duration::from_secs(5) {
            world.step().unwrap();
            if world.elapsed() == Duration::from_millis(1_500) {
                world.crash("server").unwrap();
            }
            if world.elapsed() == Duration::from_millis(2_500) {
                world.restart("server").unwrap();
            }
        }
        assert_eq!(*answers.borrow(), [Some(42), Some(42), None, Some(42)]);
    })
    .unwrap();
}

#[derive(Clone, Default)]
struct Shared(Rc<std::cell::RefCell<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut *self.0.borrow_mut(), bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
