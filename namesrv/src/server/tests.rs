//! A whole name server on the real machine, talked to over sockets.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_env::glommio::{CoreOptions, run_cores};
use ringmq_env::sim::{Crash, Sim, SimEnv};
use ringmq_env::{Env, File, IoSlice, OpenOptions, Stream, StreamReader, StreamWriter};
use ringmq_options::{Role, Settings};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, Limits};

use super::{Namesrv, NamesrvConfig};

const LIMIT: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);

/// Runs `test` on one core of the real backend, in an empty directory, within a bounded time.
fn on_machine<F: Future<Output = ()> + 'static>(
    test: impl FnOnce(ringmq_env::glommio::GlommioEnv, PathBuf) -> F + Clone + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (ended, end) = mpsc::channel();
    let cores = run_cores(1, &CoreOptions::default(), move |_, env| async move {
        test(env, path).await;
        ended.send(()).unwrap();
    });
    end.recv_timeout(LIMIT).expect("the test ends in time");
    cores.unwrap().join();
}

/// Runs `test` on one node of a simulated machine room.
fn in_simulator<F: Future<Output = ()> + 'static>(seed: u64, test: impl FnOnce(SimEnv, PathBuf) -> F) {
    let sim = Sim::new(seed);
    let env = sim.node("a");
    let (ended, end) = flume::bounded(1);
    let task = test(env.clone(), PathBuf::from("/data"));
    env.spawn(async move {
        task.await;
        ended.send(()).unwrap();
    });
    sim.run(async move { end.recv_async().await.expect("the test ends") });
}

/// Each test runs on the real machine and in the simulator.
macro_rules! on_both {
    ($($test:ident,)*) => {
        mod machine {
            $(#[test]
            fn $test() {
                super::on_machine(|env, dir| super::$test(env, dir));
            })*
        }

        mod simulator {
            $(#[test]
            fn $test() {
                (0..20).for_each(|seed| super::in_simulator(seed, |env, dir| super::$test(env, dir)));
            })*
        }
    };
}

on_both! {
    a_broker_is_gone_with_its_connection_and_with_its_silence,
    kv_configuration_outlives_the_server,
    a_damaged_kv_file_is_not_passed_over,
    requests_are_answered_in_order_however_they_are_cut,
    bad_peers_are_closed_and_harm_nobody,
    connections_are_limited,
}

fn settings(data: &Path, sets: &[&str]) -> Settings {
    let mut settings = Settings::new(Role::Namesrv);
    settings.apply_set("namesrv-port=0").unwrap();
    settings.apply_set(&format!("data={}", data.display())).unwrap();
    sets.iter().for_each(|set| settings.apply_set(set).unwrap());
    settings
}

async fn start<E: Env>(env: &E, settings: Settings) -> Namesrv<E> {
    let config = NamesrvConfig::from_settings(&settings);
    Namesrv::start(env.clone(), config, settings).await.unwrap()
}

/// A client of one connection.
struct Client<E: Env> {
    reader: <E::Stream as Stream>::Reader,
    writer: <E::Stream as Stream>::Writer,
    input: BytesMut,
}

impl<E: Env> Client<E> {
    async fn new(env: &E, addr: SocketAddr) -> Client<E> {
        let (reader, writer) = env.connect(addr, CONNECT).await.unwrap().into_split();
        Client { reader, writer, input: BytesMut::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(&[std::io::IoSlice::new(bytes)]).await.unwrap();
    }

    /// The next answer; `None` once the connection is closed.
    async fn receive(&mut self) -> Option<Command> {
        let limits = Limits::default();
        loop {
            if let Some(size) =
                frame::peek(&self.input, &limits).unwrap().filter(|size| *size <= self.input.len())
            {
                return Some(Command::decode(&mut self.input.split_to(size), &limits).unwrap());
            }
            self.input.reserve(4096);
            if self.reader.read(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn call(&mut self, command: &Command) -> Command {
        let mut bytes = BytesMut::new();
        command.encode_json(&mut bytes);
        self.send(&bytes).await;
        self.receive().await.expect("an answer")
    }
}

fn register(name: &str, silence_ms: u64) -> Command {
    let topic = |name: &str| format!(r#""{name}":{{"perm":6,"readQueueNums":8,"writeQueueNums":8}}"#);
    let body = format!(
        r#"{{"topicConfigSerializeWrapper":{{"dataVersion":{{"counter":1}},"topicConfigTable":{{{},{}}}}}}}"#,
        topic("T"),
        topic("U")
    );
    Command::request(request::REGISTER_BROKER, 1)
        .with_ext("brokerName", name)
        .with_ext("brokerAddr", format!("{name}:1"))
        .with_ext("clusterName", "C")
        .with_ext("haServerAddr", format!("{name}:2"))
        .with_ext("brokerId", 0)
        .with_ext("heartbeatTimeoutMillis", silence_ms)
        .with_body(body)
}

fn route() -> Command {
    Command::request(request::GET_ROUTEINFO_BY_TOPIC, 2).with_ext("topic", "T")
}

fn put_kv(value: &str) -> Command {
    let command = Command::request(request::PUT_KV_CONFIG, 3).with_ext("namespace", "N");
    command.with_ext("key", "k").with_ext("value", value)
}

fn get_kv() -> Command {
    Command::request(request::GET_KV_CONFIG, 4).with_ext("namespace", "N").with_ext("key", "k")
}

/// Asks for T's route until its code is `code`.
async fn until_route<E: Env>(env: &E, client: &mut Client<E>, code: i32) {
    while client.call(&route()).await.code != code {
        env.sleep(Duration::from_millis(5)).await;
    }
}

async fn a_broker_is_gone_with_its_connection_and_with_its_silence<E: Env>(env: E, dir: PathBuf) {
    let server = start(&env, settings(&dir, &["broker-scan-interval=100ms"])).await;
    let mut client = Client::new(&env, server.local_addr()).await;
    let mut broker = Client::new(&env, server.local_addr()).await;
    assert_eq!(broker.call(&register("a", 120_000)).await.code, response::SUCCESS);
    assert_eq!(client.call(&route()).await.code, response::SUCCESS);
    drop(broker);
    until_route(&env, &mut client, response::TOPIC_NOT_EXIST).await;
    let mut broker = Client::new(&env, server.local_addr()).await;
    assert_eq!(broker.call(&register("a", 50)).await.code, response::SUCCESS);
    until_route(&env, &mut client, response::TOPIC_NOT_EXIST).await;
    server.stop().await;
    assert_eq!(client.receive().await, None);
}

async fn kv_configuration_outlives_the_server<E: Env>(env: E, dir: PathBuf) {
    for value in ["first", "second"] {
        let server = start(&env, settings(&dir, &[])).await;
        let mut client = Client::new(&env, server.local_addr()).await;
        assert_eq!(client.call(&put_kv(value)).await.code, response::SUCCESS);
        server.stop().await;
        let server = start(&env, settings(&dir, &[])).await;
        let mut client = Client::new(&env, server.local_addr()).await;
        assert_eq!(client.call(&get_kv()).await.get("value"), Some(value));
        server.stop().await;
    }
    let file = env.open(&dir.join("namesrv/kvConfig.json"), OpenOptions::default()).await.unwrap();
    assert_eq!(&*file.read_at(0, 1000).await.unwrap(), br#"{"configTable":{"N":{"k":"second"}}}"#);
}

async fn a_damaged_kv_file_is_not_passed_over<E: Env>(env: E, dir: PathBuf) {
    env.create_dir_all(&dir.join("namesrv")).await.unwrap();
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let file = env.open(&dir.join("namesrv/kvConfig.json"), options).await.unwrap();
    file.write_at(IoSlice::copy_of(b"{\"configTable\":"), 0).await.unwrap();
    let settings = settings(&dir, &[]);
    let config = NamesrvConfig::from_settings(&settings);
    let error = Namesrv::start(env, config, settings).await.err().unwrap().to_string();
    assert!(error.contains("kvConfig.json is damaged"), "{error}");
}

async fn requests_are_answered_in_order_however_they_are_cut<E: Env>(env: E, dir: PathBuf) {
    let server = start(&env, settings(&dir, &[])).await;
    let mut client = Client::new(&env, server.local_addr()).await;
    let mut bytes = BytesMut::new();
    for opaque in 0..50 {
        let code = if opaque % 10 == 9 { request::PUT_KV_CONFIG } else { request::GET_BROKER_CLUSTER_INFO };
        let command = Command::request(code, opaque).with_ext("namespace", "N").with_ext("key", "k");
        command.with_ext("value", "v").encode_json(&mut bytes);
        Command::oneway(request::GET_BROKER_CLUSTER_INFO, opaque).encode_json(&mut bytes);
    }
    for piece in bytes.chunks(701) {
        client.send(piece).await;
        env.yield_now().await;
    }
    for opaque in 0..50 {
        let answer = client.receive().await.unwrap();
        assert_eq!((answer.opaque, answer.code), (opaque, response::SUCCESS));
    }
    server.stop().await;
}

async fn bad_peers_are_closed_and_harm_nobody<E: Env>(env: E, dir: PathBuf) {
    let server = start(&env, settings(&dir, &["max-frame-size=64KiB", "idle-timeout=1s"])).await;
    let addr = server.local_addr();
    let mut good = Client::new(&env, addr).await;
    let answered = Rc::new(Cell::new(0));
    let bad: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 1, 0, 0, 0, 0],
        &[0, 1, 0, 1, 0, 0, 0, 0],
        &[0, 0, 0, 20, 0, 0, 0, 90, b'{'],
    ];
    for bytes in bad {
        let mut client = Client::new(&env, addr).await;
        client.send(bytes).await;
        assert_eq!(client.receive().await, None, "{bytes:?}");
        assert_eq!(good.call(&route()).await.code, response::TOPIC_NOT_EXIST);
        answered.set(answered.get() + 1);
    }
    let mut slow = Client::new(&env, addr).await;
    slow.send(&[0, 0]).await;
    assert_eq!(slow.receive().await, None, "idle connections are closed");
    assert_eq!(answered.get(), bad.len());
    server.stop().await;
}

async fn connections_are_limited<E: Env>(env: E, dir: PathBuf) {
    let server = start(&env, settings(&dir, &["max-connections=2"])).await;
    let mut first = Client::new(&env, server.local_addr()).await;
    let mut second = Client::new(&env, server.local_addr()).await;
    first.call(&route()).await;
    second.call(&route()).await;
    let mut third = Client::new(&env, server.local_addr()).await;
    assert_eq!(third.receive().await, None);
    drop(first);
    env.sleep(Duration::from_millis(100)).await;
    let mut third = Client::new(&env, server.local_addr()).await;
    assert_eq!(third.call(&route()).await.code, response::TOPIC_NOT_EXIST);
    server.stop().await;
}

/// Whatever a crash keeps of unsynced writes, the last answered value is there, or the one that was on its way.
#[test]
fn answered_kv_configuration_survives_power_loss() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let answered = Rc::new(Cell::new(0_u32));
        let (env, counted) = (sim.node("a"), Rc::clone(&answered));
        let task = env.clone();
        env.spawn(async move {
            let server = start(&task, settings(Path::new("/data"), &[])).await;
            let mut client = Client::new(&task, server.local_addr()).await;
            for value in 1.. {
                assert_eq!(client.call(&put_kv(&value.to_string())).await.code, response::SUCCESS);
                counted.set(value);
            }
        });
        let moment = Duration::from_micros(5_000 + sim.random() % 50_000);
        sim.run(sim.sleep(moment));
        sim.crash("a", if seed % 2 == 0 { Crash::PowerLosingAll } else { Crash::Power });
        let (kept, told) = flume::bounded(1);
        let env = sim.node("a");
        let task = env.clone();
        env.spawn(async move {
            let server = start(&task, settings(Path::new("/data"), &[])).await;
            let mut client = Client::new(&task, server.local_addr()).await;
            let value = client.call(&get_kv()).await.get("value").map(|value| value.parse::<u32>().unwrap());
            kept.send(value.unwrap_or_default()).unwrap();
        });
        let kept = sim.run(async { told.recv_async().await.unwrap() });
        let answered = answered.get();
        assert!(kept == answered || kept == answered + 1, "seed {seed}: {answered} answered, {kept} kept");
    }
}
