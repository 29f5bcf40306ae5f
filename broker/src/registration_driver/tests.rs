//! The driver against a name server of a few lines, on the simulator.

use std::net::SocketAddr;

use bytes::BytesMut;
use ringmq_env::sim::{Sim, SimEnv};
use ringmq_env::{Listener, Stream, StreamReader, StreamWriter};
use ringmq_protocol::codes::request;
use ringmq_protocol::frame::{self, Limits};

use super::*;

const PERIOD: Duration = Duration::from_secs(30);

/// What a name server does with its next requests.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    Refuses,
    SaysNothing,
    HangsUp,
    Babbles,
}

/// A name server: remembers the codes that it was sent, and the body of the last.
struct Server {
    mood: Cell<Mood>,
    /// It has the version that it is asked about.
    has_version: Cell<bool>,
    /// It takes topics by themselves.
    knows_topics: Cell<bool>,
    codes: RefCell<Vec<i32>>,
    body: RefCell<String>,
}

impl Server {
    fn count(&self, code: i32) -> usize {
        self.codes.borrow().iter().filter(|seen| **seen == code).count()
    }
}

async fn serve(server: Rc<Server>, env: SimEnv, listener: impl Listener) {
    while let Ok(stream) = listener.accept().await {
        env.spawn(serve_connection(server.clone(), stream));
    }
}

async fn serve_connection(server: Rc<Server>, stream: impl Stream) {
    let (mut reader, mut writer) = stream.into_split();
    let mut input = BytesMut::new();
    loop {
        input.reserve(1024);
        if !matches!(reader.read(&mut input).await, Ok(1..)) {
            return;
        }
        let limits = Limits::default();
        while let Some(size) = frame::peek(&input, &limits).unwrap().filter(|size| *size <= input.len()) {
            let request = Command::decode(&mut input.split_to(size), &limits).unwrap();
            server.codes.borrow_mut().push(request.code);
            *server.body.borrow_mut() = String::from_utf8(request.body.to_vec()).unwrap();
            let mut output = BytesMut::new();
            match server.mood.get() {
                Mood::Answers if request.code == request::QUERY_DATA_VERSION => {
                    let answer = Command::response(0, request.opaque);
                    answer.with_ext("changed", !server.has_version.get()).encode_json(&mut output);
                }
                Mood::Answers
                    if request.code == request::REGISTER_TOPIC_IN_NAMESRV && !server.knows_topics.get() =>
                {
                    Command::response(3, request.opaque).with_remark("not supported").encode_json(&mut output)
                }
                Mood::Answers => Command::response(0, request.opaque)
                    .with_body(r#"{"table":{"ordered":"b:4"}}"#)
                    .encode_json(&mut output),
                Mood::Refuses => {
                    Command::response(1, request.opaque).with_remark("no").encode_json(&mut output)
                }
                Mood::Babbles => output.extend_from_slice(b"\0\0\0\x09 garbage "),
                Mood::SaysNothing => {}
                Mood::HangsUp => return,
            }
            let _ = writer.write_all(&[std::io::IoSlice::new(&output)]).await;
        }
    }
}

/// A broker whose topics are a number.
#[derive(Default)]
struct Source {
    topics: Cell<u32>,
    /// Topics are stated one by one.
    by_topic: Cell<bool>,
    /// The version may be stated instead of the table.
    by_version: Cell<bool>,
    /// Topics that are told behind a registration.
    behind: Cell<usize>,
    /// Where it takes a second to put one together.
    slow: RefCell<Option<SimEnv>>,
    ordered: RefCell<Vec<String>>,
}

impl RegistrationSource for Source {
    fn register(&self) -> BoxedLocal<'_, WholeTable> {
        let registration =
            Command::request(request::REGISTER_BROKER, 0).with_body(self.topics.get().to_string());
        let behind = vec!["flagged".into(); self.behind.get()];
        let slow = self.slow.borrow().clone();
        Box::pin(async {
            if let Some(env) = slow {
                env.sleep(Duration::from_secs(1)).await;
            }
            WholeTable { registration, behind }
        })
    }

    fn state_version(&self) -> Option<Command> {
        self.by_version.get().then(|| Command::request(request::QUERY_DATA_VERSION, 0))
    }

    fn are_few(&self, _changed: &BTreeSet<Arc<str>>) -> bool {
        self.by_topic.get()
    }

    fn register_topic(&self, topic: &str) -> Option<Command> {
        let request = Command::request(request::REGISTER_TOPIC_IN_NAMESRV, 0);
        (topic != "gone").then(|| request.with_body(topic.to_owned()))
    }

    fn unregister(&self) -> Command {
        Command::request(request::UNREGISTER_BROKER, 0)
    }

    fn ordered_topics(&self, topics: Vec<String>) {
        *self.ordered.borrow_mut() = topics;
    }
}

struct World {
    env: SimEnv,
    server: Rc<Server>,
    source: Rc<Source>,
    registrar: Registrar<SimEnv>,
}

/// Runs a test with one name server that listens and one address where nobody does.
fn with_world(mood: Mood, test: impl AsyncFnOnce(World)) {
    let sim = Sim::new(7);
    let (ns, env) = (sim.node("ns"), sim.node("b"));
    let addr = SocketAddr::new(sim.ip("ns"), 9876);
    let server = Rc::new(Server {
        mood: Cell::new(mood),
        has_version: Cell::new(true),
        knows_topics: Cell::new(true),
        codes: RefCell::default(),
        body: RefCell::default(),
    });
    let run = async {
        let listener = ns.listen(addr).await.unwrap();
        ns.spawn(serve(server.clone(), ns.clone(), listener));
        let source = Rc::<Source>::default();
        let servers = [addr.to_string(), SocketAddr::new(sim.ip("ns"), 1).to_string()];
        let registrar = Registrar::start(&env, &servers, PERIOD, source.clone());
        test(World { env: env.clone(), server, source, registrar }).await;
    };
    sim.run(run);
}

async fn seconds(world: &World, seconds: u64) {
    world.env.sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn it_registers_at_once_every_period_and_at_each_change() {
    with_world(Mood::Answers, async |world| {
        world.registrar.settled(Duration::from_secs(5)).await;
        assert_eq!(world.server.count(request::REGISTER_BROKER), 1);
        assert_eq!(*world.source.ordered.borrow(), ["ordered"]);
        seconds(&world, 61).await;
        assert_eq!(world.server.count(request::REGISTER_BROKER), 3);
        world.source.topics.set(42);
        world.registrar.topics_changed([].iter());
        world.registrar.settled(Duration::from_secs(5)).await;
        assert_eq!(*world.server.body.borrow(), "42", "the change is known once it is settled");
        assert_eq!(world.server.count(request::REGISTER_BROKER), 4);
        world.registrar.stop(Duration::from_secs(1)).await;
        assert_eq!(world.server.count(request::UNREGISTER_BROKER), 1);
        seconds(&world, 100).await;
        assert_eq!(world.server.codes.borrow().len(), 5, "nothing is sent behind the goodbye");
    });
}

#[test]
fn a_few_topics_are_stated_by_themselves_and_all_again_when_that_fails_or_the_period_is_over() {
    with_world(Mood::Answers, async |world| {
        world.registrar.settled(Duration::from_secs(5)).await;
        world.source.by_topic.set(true);
        let change = async |topics: &[&str]| {
            let topics: Vec<Arc<str>> = topics.iter().map(|topic| (*topic).into()).collect();
            world.registrar.topics_changed(topics.iter());
            world.registrar.settled(Duration::from_secs(5)).await;
        };
        let counts = || {
            let codes = [request::REGISTER_BROKER, request::REGISTER_TOPIC_IN_NAMESRV];
            codes.map(|code| world.server.count(code))
        };
        change(&["b", "a"]).await;
        assert_eq!((counts(), &**world.server.body.borrow()), ([1, 2], "b"));
        for _ in 0..35 {
            seconds(&world, 1).await;
            change(&["c"]).await;
        }
        assert_eq!(counts(), [2, 37], "the whole table every period, however often topics change");
        change(&["gone", "c"]).await;
        assert_eq!((counts(), &**world.server.body.borrow()), ([2, 38], "c"), "gone since");
        world.server.mood.set(Mood::Refuses);
        change(&["d"]).await;
        world.server.mood.set(Mood::Answers);
        let [tables, topics] = counts();
        seconds(&world, 5).await;
        assert_eq!(counts(), [tables + 1, topics], "it may have missed some");
        change(&["e"]).await;
        assert_eq!(counts(), [tables + 1, topics + 1]);
    });
}

#[test]
fn a_version_is_stated_instead_of_the_table_while_the_name_server_has_it() {
    with_world(Mood::Answers, async |world| {
        world.source.by_version.set(true);
        world.registrar.settled(Duration::from_secs(5)).await;
        let counts = || {
            let codes = [request::REGISTER_BROKER, request::QUERY_DATA_VERSION];
            codes.map(|code| world.server.count(code))
        };
        assert_eq!(counts(), [1, 0], "nobody has it yet");
        seconds(&world, 61).await;
        assert_eq!(counts(), [1, 2]);
        world.registrar.topics_changed([].iter());
        world.registrar.settled(Duration::from_secs(5)).await;
        assert_eq!(counts(), [2, 2], "a change");
        world.server.has_version.set(false);
        seconds(&world, 31).await;
        assert_eq!(counts(), [3, 3], "it has another");
        world.server.has_version.set(true);
        seconds(&world, 5 * 30).await;
        assert_eq!(counts(), [4, 7], "and the table after three of them");
        world.server.mood.set(Mood::HangsUp);
        seconds(&world, 35).await;
        world.server.mood.set(Mood::Answers);
        let [tables, _] = counts();
        seconds(&world, 35).await;
        assert_eq!(counts()[0], tables + 1, "it may be another name server");
    });
}

#[test]
fn what_a_registration_cannot_say_comes_behind_it() {
    with_world(Mood::Answers, async |world| {
        world.source.behind.set(TOPICS_AT_ONCE + 1);
        world.registrar.settled(Duration::from_secs(5)).await;
        {
            let codes = world.server.codes.borrow();
            assert_eq!((codes.len(), codes[0]), (TOPICS_AT_ONCE + 2, request::REGISTER_BROKER));
        }
        world.server.knows_topics.set(false);
        world.source.ordered.borrow_mut().clear();
        world.registrar.topics_changed([].iter());
        world.registrar.settled(Duration::from_secs(5)).await;
        assert_eq!(
            *world.source.ordered.borrow(),
            ["ordered"],
            "an old name server has the table all the same"
        );
        seconds(&world, 20).await;
        assert_eq!(world.server.count(request::REGISTER_BROKER), 2);
    });
}

#[test]
fn what_changes_while_a_registration_is_put_together_is_told_behind_it() {
    with_world(Mood::Answers, async |world| {
        world.source.slow.replace(Some(world.env.clone()));
        world.registrar.topics_changed([].iter());
        world.env.sleep(Duration::from_millis(500)).await;
        world.source.topics.set(42);
        world.registrar.topics_changed([].iter());
        world.registrar.settled(Duration::from_secs(5)).await;
        assert_eq!(*world.server.body.borrow(), "42");
    });
}

#[test]
fn a_broker_that_stops_sends_no_registration_any_more() {
    with_world(Mood::Answers, async |world| {
        world.registrar.settled(Duration::from_secs(5)).await;
        world.source.slow.replace(Some(world.env.clone()));
        world.registrar.topics_changed([].iter());
        world.env.sleep(Duration::from_millis(500)).await;
        let begin = world.env.now();
        world.registrar.stop(Duration::from_secs(5)).await;
        assert_eq!(*world.server.codes.borrow(), [request::REGISTER_BROKER, request::UNREGISTER_BROKER]);
        assert!(world.env.now().since(begin) < Duration::from_millis(300), "nor is one put together");
    });
}

#[test]
fn it_comes_back_when_the_name_server_does() {
    for mood in [Mood::Refuses, Mood::SaysNothing, Mood::HangsUp, Mood::Babbles] {
        with_world(mood, async |world| {
            seconds(&world, 20).await;
            let tries = world.server.count(request::REGISTER_BROKER);
            assert!((2..=8).contains(&tries), "{tries} tries in 20 s");
            world.server.mood.set(Mood::Answers);
            seconds(&world, 40).await;
            assert_eq!(*world.source.ordered.borrow(), ["ordered"]);
        });
    }
}

#[test]
fn a_lost_connection_is_noticed_and_made_again() {
    with_world(Mood::Answers, async |world| {
        world.registrar.settled(Duration::from_secs(5)).await;
        world.server.mood.set(Mood::HangsUp);
        world.registrar.topics_changed([].iter());
        world.registrar.settled(Duration::from_secs(5)).await;
        world.server.mood.set(Mood::Answers);
        let before = world.server.count(request::REGISTER_BROKER);
        seconds(&world, 2).await;
        assert_eq!(
            world.server.count(request::REGISTER_BROKER),
            before + 1,
            "long before the period is over"
        );
    });
}

#[test]
fn stopping_does_not_wait_for_a_silent_name_server() {
    with_world(Mood::SaysNothing, async |world| {
        seconds(&world, 1).await;
        let begin = world.env.now();
        world.registrar.stop(Duration::from_millis(500)).await;
        assert!(world.env.now().since(begin) < Duration::from_millis(600));
    });
}
