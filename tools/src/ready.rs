//! What is printed on stdout once everything serves.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use ringmq_broker::{BrokerConfig, BrokerReady};
use ringmq_options::show_size;

/// A broker that is ready.
pub struct ReadyBroker<'a> {
    /// What it was told.
    pub config: &'a BrokerConfig,
    /// What it says of itself.
    pub ready: &'a BrokerReady,
}

/// The block for a name server, a broker, or both. `ready_ms`: since the process started.
pub fn block(
    namesrv: Option<SocketAddr>,
    broker: Option<&ReadyBroker<'_>>,
    data: &Path,
    ready_ms: u128,
) -> String {
    let mut text = format!(
        "RingMQ {}, process {}, ready after {ready_ms} ms\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "  {name:<12} {value}").expect("writing to a string cannot fail");
    };
    if let Some(addr) = namesrv {
        line("name server", &addr);
    }
    if let Some(broker) = broker {
        broker_lines(&mut line, broker);
    }
    line("data", &data.display());
    // Scripts and tests of Java's wait for these words.
    if let Some(addr) = namesrv {
        text.push_str(&format!("The Name Server boot success. serializeType=JSON, address {addr}\n"));
    }
    if let Some(broker) = broker {
        let (name, told) = (&broker.config.broker_name, broker.ready.advertised);
        let namesrv = match broker.config.namesrv.as_slice() {
            [] => String::new(),
            some => format!(" and name server is {}", some.join(";")),
        };
        text.push_str(&format!("The broker[{name}, {told}] boot success. serializeType=JSON{namesrv}\n"));
    }
    text
}

fn broker_lines(line: &mut dyn FnMut(&str, &dyn std::fmt::Display), broker: &ReadyBroker<'_>) {
    let ReadyBroker { config, ready } = broker;
    let listening: Vec<String> = ready.listening.iter().map(ToString::to_string).collect();
    line("broker", &format!("{}: {} in {}", listening.join(" and "), config.broker_name, config.cluster));
    line("clients", &format!("are told {}", ready.advertised));
    if let Some(address) = ready.metrics {
        line("metrics", &format!("http://{address}/metrics"));
    }
    let flush = match config.sync_flush {
        true => "sync: a send is acknowledged once it is on the device".to_owned(),
        false => format!(
            "async: a send is acknowledged once it is written, and on the device within {} ms",
            config.flush_interval.as_millis()
        ),
    };
    line("flush", &flush);
    line("cores", &format!("{}, shards {}", config.cores, ready.shards));
    line("memory", &format!("at most {} ({})", show_size(config.memory), config.memory_origin));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmq_broker::Machine;
    use ringmq_options::{Role, Settings};

    #[test]
    fn the_block_says_what_was_asked_for() {
        let mut settings = Settings::new(Role::Server);
        settings.apply_set("memory=1GiB").unwrap();
        let machine = Machine { cores: 4, memory: 8 << 30, cgroup_memory: None, address: None };
        let mut config = BrokerConfig::from_settings(&settings, &machine).unwrap();
        config.namesrv = vec!["127.0.0.1:9876".to_owned()];
        let listening = vec!["127.0.0.1:10911".parse().unwrap(), "127.0.0.1:10909".parse().unwrap()];
        let metrics = "127.0.0.1:5557".parse().ok();
        let ready = BrokerReady { advertised: listening[0], listening, metrics, shards: 2 };
        let broker = ReadyBroker { config: &config, ready: &ready };
        let text = block("127.0.0.1:9876".parse().ok(), Some(&broker), Path::new("./data"), 23);
        for part in [
            "ready after 23 ms",
            "name server  127.0.0.1:9876\n",
            "broker       127.0.0.1:10911 and 127.0.0.1:10909: broker-a in DefaultCluster\n",
            "clients      are told 127.0.0.1:10911\n",
            "metrics      http://127.0.0.1:5557/metrics\n",
            "flush        sync: ",
            "cores        2, shards 2\n",
            "memory       at most 1GiB (as given)\n",
            "data         ./data\n",
            "The Name Server boot success. serializeType=JSON, address 127.0.0.1:9876\n",
            "The broker[broker-a, 127.0.0.1:10911] boot success. serializeType=JSON and name server is 127.0.0.1:9876\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
