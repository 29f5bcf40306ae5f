//! The answer of GET_BROKER_RUNTIME_INFO (28): what `mqadmin clusterList` and `brokerStatus`, the dashboard and the
//! exporter show of a broker.
//!
//! The exporter reads most keys without looking whether they are there, and drops the whole broker when one is not:
//! every key stays, with 0 where RingMQ has nothing of the kind (thread pool queues, transient store buffers).

use std::collections::BTreeMap;

use ringmq_engine::{PendingStats, ShardStats};
use ringmq_env::DiskSpace;

use super::stats::{DailyTotals, PutLatency, StoreRates};
use crate::meters::Deliveries;

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What the figures are made of, gathered from every shard and core.
pub struct RuntimeInputs<'a> {
    /// Each shard's counters and gauges.
    pub shards: &'a [ShardStats],
    /// Space on the store's filesystem.
    pub disk: DiskSpace,
    /// Directory of the store.
    pub data_dir: &'a str,
    /// When the broker started, in ms.
    pub boot_ms: i64,
    /// Now, in ms.
    pub now_ms: i64,
    /// Rates of puts and gets.
    pub rates: &'a StoreRates,
    /// Totals at midnight.
    pub daily: DailyTotals,
    /// How long stores take.
    pub put_latency: &'a PutLatency,
    /// Sends that failed.
    pub put_failed: u64,
    /// Slowest read of messages so far, in ms.
    pub get_max_ms: u64,
    /// Requests that wait in the rings between the cores.
    pub queued_requests: usize,
    /// Most that may wait there.
    pub queue_capacity: usize,
    /// Delayed messages that wait, in each shard.
    pub delayed: &'a [PendingStats],
    /// What was delayed and retried.
    pub deliveries: Deliveries,
    /// RocketMQ version whose answers these are: its ordinal.
    pub version: i32,
    /// Its name, such as `V5_5_0`.
    pub version_name: &'a str,
}

/// The table of 28, by key.
pub fn runtime_info(inputs: &RuntimeInputs<'_>) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        let before = table.insert(key.to_owned(), value);
        assert!(before.is_none(), "each key is written once: {key}");
    };
    put_identity(inputs, &mut put);
    put_store(inputs, &mut put);
    put_rates(inputs, &mut put);
    put_totals(inputs, &mut put);
    put_queues(inputs, &mut put);
    put_delayed(inputs, &mut put);
    put_without_equivalent(&mut put);
    table
}

fn put_identity(inputs: &RuntimeInputs<'_>, put: &mut impl FnMut(&str, String)) {
    put("brokerActive", "true".into());
    put("brokerVersion", inputs.version.to_string());
    put("brokerVersionDesc", inputs.version_name.into());
    put("bootTimestamp", inputs.boot_ms.to_string());
    put("runtime", show_runtime(inputs.now_ms - inputs.boot_ms));
    put("startAcceptSendRequestTimeStamp", "0".into());
}

fn put_store(inputs: &RuntimeInputs<'_>, put: &mut impl FnMut(&str, String)) {
    let sum = |of: fn(&ShardStats) -> u64| inputs.shards.iter().map(of).sum::<u64>();
    let earliest = inputs.shards.iter().map(|shard| shard.earliest_store_ms).filter(|ms| *ms >= 0).min();
    let unflushed = sum(|shard| shard.log_staged - shard.log_flushed.min(shard.log_staged));
    let used = inputs.disk.total.saturating_sub(inputs.disk.available);
    let ratio = if inputs.disk.total == 0 { -1.0 } else { used as f64 / inputs.disk.total as f64 };
    put("commitLogMinOffset", sum(|shard| shard.log_min).to_string());
    put("commitLogMaxOffset", sum(|shard| shard.log_committed).to_string());
    put("earliestMessageTimeStamp", earliest.unwrap_or(-1).to_string());
    put("remainHowManyDataToFlush", show_bytes(unflushed));
    let (total, free) = (show_bytes(inputs.disk.total), show_bytes(inputs.disk.available));
    put("commitLogDirCapacity", format!("Total : {total}, Free : {free}."));
    put("commitLogDiskRatio", ratio.to_string());
    put(&format!("commitLogDiskRatio_{}", inputs.data_dir), ratio.to_string());
    put("consumeQueueDiskRatio", ratio.to_string());
    put("dispatchBehindBytes", "0".into());
}

fn put_rates(inputs: &RuntimeInputs<'_>, put: &mut impl FnMut(&str, String)) {
    put("putTps", inputs.rates.text(|totals| totals.put));
    put("getFoundTps", inputs.rates.text(|totals| totals.get_found));
    put("getMissTps", inputs.rates.text(|totals| totals.get_miss));
    put("getTotalTps", inputs.rates.text(|totals| totals.get_found + totals.get_miss));
    put("getTransferredTps", inputs.rates.text(|totals| totals.transferred));
    put("putMessageEntireTimeMax", inputs.put_latency.max_ms().to_string());
    put("putMessageDistributeTime", inputs.put_latency.text());
    put("putLatency99", format!("{:.2}", inputs.put_latency.quantile_ms(0.99)));
    put("putLatency999", format!("{:.2}", inputs.put_latency.quantile_ms(0.999)));
    put("getMessageEntireTimeMax", inputs.get_max_ms.to_string());
}

fn put_totals(inputs: &RuntimeInputs<'_>, put: &mut impl FnMut(&str, String)) {
    let messages: u64 = inputs.shards.iter().map(|shard| shard.messages_appended).sum();
    let bytes: u64 = inputs.shards.iter().map(|shard| shard.bytes_appended).sum();
    let totals = inputs.rates.totals();
    put("putMessageTimesTotal", messages.to_string());
    put("putMessageFailedTimes", inputs.put_failed.to_string());
    put("putMessageSizeTotal", bytes.to_string());
    put("putMessageAverageSize", (bytes as f64 / messages.max(1) as f64).to_string());
    put("msgPutTotalYesterdayMorning", inputs.daily.put_yesterday_morning.to_string());
    put("msgPutTotalTodayMorning", inputs.daily.put_today_morning.to_string());
    put("msgPutTotalTodayNow", totals.put.to_string());
    put("msgGetTotalYesterdayMorning", inputs.daily.get_yesterday_morning.to_string());
    put("msgGetTotalTodayMorning", inputs.daily.get_today_morning.to_string());
    put("msgGetTotalTodayNow", totals.transferred.to_string());
    put("filterEvaluatedTotal", totals.filter_evaluated.to_string());
    put("filterRejectedTotal", totals.filter_rejected.to_string());
}

/// There are no thread pools: every request waits in the rings between the cores, if it waits at all.
fn put_queues(inputs: &RuntimeInputs<'_>, put: &mut impl FnMut(&str, String)) {
    for pool in ["send", "pull", "litePull", "query", "ack"] {
        put(&format!("{pool}ThreadPoolQueueSize"), inputs.queued_requests.to_string());
        put(&format!("{pool}ThreadPoolQueueCapacity"), inputs.queue_capacity.to_string());
        put(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), "0".into());
    }
    put("EndTransactionQueueSize", "0".into());
    put("EndTransactionThreadPoolQueueCapacity", inputs.queue_capacity.to_string());
}

/// Delayed messages under Java's keys, and what Java has no keys for.
fn put_delayed(inputs: &RuntimeInputs<'_>, put: &mut impl FnMut(&str, String)) {
    let earliest = inputs.delayed.iter().filter_map(|shard| shard.next_due_ms).min();
    let behind_ms = earliest.map_or(0, |due_ms| inputs.now_ms.saturating_sub(due_ms).max(0));
    let waiting: u64 = inputs.delayed.iter().map(|shard| shard.count).sum();
    put("timerReadBehind", behind_ms.to_string());
    put("timerCongestNum", waiting.to_string());
    let Deliveries { count, late_ms, late, recalled, retries, dead_letters } = inputs.deliveries;
    put("delayedDelivered", count.to_string());
    put("delayedDeliveredLate", late.to_string());
    put("delayedLateMsTotal", late_ms.to_string());
    put("timersRecalled", recalled.to_string());
    put("retriesStored", retries.to_string());
    put("deadLettersStored", dead_letters.to_string());
}

/// Figures of Java's machinery that RingMQ has no equivalent of.
fn put_without_equivalent(put: &mut impl FnMut(&str, String)) {
    for key in ["dispatchMaxBuffer", "pageCacheLockTimeMills", "remainTransientStoreBufferNumbs"] {
        put(key, "0".into());
    }
    put("timerOffsetBehind", "0".into());
    put("timerEnqueueTps", "0.0".into());
    put("timerDequeueTps", "0.0".into());
}

/// `[ 0 days, 1 hours, 2 minutes, 3 seconds ]`
fn show_runtime(ms: i64) -> String {
    let ms = ms.max(0);
    let (days, hours) = (ms / DAY_MS, ms % DAY_MS / HOUR_MS);
    let (minutes, seconds) = (ms % HOUR_MS / MINUTE_MS, ms % MINUTE_MS / SECOND_MS);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]")
}

/// `123.4 GiB`, as Java's `MixAll.humanReadableByteCount`.
fn show_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (63 - bytes.leading_zeros()) / 10;
    let unit = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][exponent as usize];
    format!("{:.1} {unit}", bytes as f64 / 1024_f64.powi(exponent as i32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::Totals;

    const BOOT: i64 = 1_700_000_000_000;

    fn table() -> BTreeMap<String, String> {
        let mut rates = StoreRates::new();
        rates.sample(BOOT, Totals::default());
        rates.sample(
            BOOT + 1000,
            Totals { put: 10, get_found: 2, get_miss: 1, transferred: 8, ..Totals::default() },
        );
        let shard = ShardStats {
            log_min: 1024,
            log_committed: 4096,
            log_staged: 5120,
            log_flushed: 4096,
            messages_appended: 10,
            bytes_appended: 2500,
            earliest_store_ms: BOOT,
            ..ShardStats::default()
        };
        let empty = ShardStats { earliest_store_ms: -1, ..ShardStats::default() };
        let delayed = PendingStats { count: 7, next_due_ms: Some(BOOT), ..PendingStats::default() };
        runtime_info(&RuntimeInputs {
            shards: &[shard, empty],
            disk: DiskSpace { total: 100 << 30, available: 25 << 30 },
            data_dir: "data",
            boot_ms: BOOT,
            now_ms: BOOT + DAY_MS + 2 * HOUR_MS + 3 * MINUTE_MS + 4 * SECOND_MS,
            rates: &rates,
            daily: DailyTotals::new(BOOT),
            put_latency: &PutLatency::default(),
            put_failed: 0,
            get_max_ms: 0,
            queued_requests: 0,
            queue_capacity: 8192,
            delayed: &[delayed, PendingStats::default()],
            deliveries: Deliveries::default(),
            version: 513,
            version_name: "V5_5_0",
        })
    }

    /// What rocketmq-exporter reads without looking whether it is there, and mqadmin clusterList.
    const NEEDED: &str = "bootTimestamp brokerVersion commitLogDirCapacity commitLogDiskRatio commitLogMaxOffset \
        commitLogMinOffset consumeQueueDiskRatio dispatchBehindBytes dispatchMaxBuffer earliestMessageTimeStamp \
        getFoundTps getMessageEntireTimeMax getMissTps getTotalTps getTransferredTps msgGetTotalTodayMorning \
        msgGetTotalTodayNow msgGetTotalYesterdayMorning msgPutTotalTodayMorning msgPutTotalTodayNow \
        msgPutTotalYesterdayMorning pageCacheLockTimeMills pullThreadPoolQueueCapacity \
        pullThreadPoolQueueHeadWaitTimeMills pullThreadPoolQueueSize queryThreadPoolQueueCapacity \
        queryThreadPoolQueueHeadWaitTimeMills queryThreadPoolQueueSize sendThreadPoolQueueCapacity \
        sendThreadPoolQueueHeadWaitTimeMills sendThreadPoolQueueSize putMessageAverageSize putMessageDistributeTime \
        putMessageEntireTimeMax putMessageSizeTotal putMessageTimesTotal putTps remainHowManyDataToFlush \
        remainTransientStoreBufferNumbs runtime startAcceptSendRequestTimeStamp brokerVersionDesc timerReadBehind \
        timerOffsetBehind timerCongestNum timerEnqueueTps timerDequeueTps brokerActive putLatency99 putLatency999";

    #[test]
    fn every_key_is_there_that_tools_need() {
        let table = table();
        let missing: Vec<&str> = NEEDED.split_whitespace().filter(|key| !table.contains_key(*key)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn values_are_as_tools_split_them() {
        let table = table();
        assert_eq!(table["runtime"], "[ 1 days, 2 hours, 3 minutes, 4 seconds ]");
        // The exporter takes the words 2, 3, 6 and 7.
        assert_eq!(table["commitLogDirCapacity"], "Total : 100.0 GiB, Free : 25.0 GiB.");
        assert_eq!(table["commitLogDiskRatio"], "0.75");
        assert_eq!(table["remainHowManyDataToFlush"], "1.0 KiB");
        assert_eq!(table["putTps"], "10.000 10.000 10.000");
        assert_eq!(table["getTotalTps"], "3.000 3.000 3.000");
        assert_eq!(table["putMessageAverageSize"], "250");
        assert_eq!(table["timerCongestNum"], "7");
        assert_eq!(
            table["timerReadBehind"],
            (DAY_MS + 2 * HOUR_MS + 3 * MINUTE_MS + 4 * SECOND_MS).to_string()
        );
        assert_eq!(table["commitLogMaxOffset"], "4096");
        assert_eq!(table["earliestMessageTimeStamp"], BOOT.to_string());
    }

    #[test]
    fn bytes_are_written_as_java_does() {
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(1536), "1.5 KiB");
        assert_eq!(show_bytes(u64::MAX), "16.0 EiB");
    }
}
