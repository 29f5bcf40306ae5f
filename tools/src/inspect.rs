//! `ringmq inspect`: looks at a store that no process uses.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use ringmq_engine::{
    Damage, Inspection, OFFSETS, OpenError, PhysicalOffset, Shard, ShardId, ShardOptions, StoreMeta,
    find_record, inspect_metadata, inspect_shard,
};
use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};
use ringmq_env::process::LockFile;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::record::RecordView;

/// The arguments.
pub fn command() -> Command {
    Command::new("inspect")
        .about("Checks a store that no process uses: every checksum and chain; the exit status is 1 when anything is wrong")
        .arg(Arg::new("data").long("data").default_value("./data").help("Directory of the store"))
        .arg(Arg::new("record").long("record").help("Shows the message at this physical offset, or with this offset message id"))
        .arg(
            Arg::new("repair")
                .long("repair")
                .action(ArgAction::SetTrue)
                .help("Then does what a start would do about the damage, and checks again"),
        )
}

/// What is asked for.
#[derive(Clone)]
struct Question {
    data: PathBuf,
    record: Option<PhysicalOffset>,
    repair: bool,
}

/// Runs it; an error when anything is damaged.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let text = |name: &str| matches.get_one::<String>(name);
    let data = PathBuf::from(text("data").context("clap has a default")?);
    ensure!(data.join("store.meta").exists(), "{} holds no store", data.display());
    // A store that is in use changes under the eyes of whoever looks.
    let _lock = LockFile::acquire(&data.join("lock"))?;
    let record = text("record").map(|text| physical_offset(text)).transpose()?;
    let question = Question { data, record, repair: matches.get_flag("repair") };
    let (tell, told) = sync_channel(1);
    let cores = run_cores(1, &CoreOptions::unpinned(), move |_, env| async move {
        // The main thread waits for this.
        let _ = tell.send(answer(&env, &question).await);
    })?;
    let answered = told.recv().map_err(|_| anyhow!("the inspection ended early"))?;
    cores.join();
    let (text, damaged) = answered?;
    print!("{text}");
    match damaged {
        0 => Ok(()),
        places => bail!("{places} damaged places"),
    }
}

fn physical_offset(text: &str) -> anyhow::Result<PhysicalOffset> {
    let offset = match text.parse::<i64>() {
        Ok(offset) if text.len() < 20 => offset,
        _ => {
            OffsetMessageId::decode(text)
                .context("neither an offset nor an offset message id")?
                .physical_offset
        }
    };
    PhysicalOffset::from_wire(offset)
        .with_context(|| format!("{offset} is no offset: there is no such shard or position"))
}

async fn answer(env: &GlommioEnv, question: &Question) -> anyhow::Result<(String, usize)> {
    let meta = StoreMeta::read(env, &question.data).await?;
    let mut out = String::new();
    writeln!(out, "store {:016x}, {} shards", meta.store_id, meta.shards)?;
    if let Some(offset) = question.record {
        let dir = StoreMeta::shard_dir(&question.data, offset.shard());
        let record = find_record(env, &dir, offset, meta.store_id).await?;
        show_record(&mut out, &record.context("no message starts at this offset")?)?;
        return Ok((out, 0));
    }
    let mut damaged = check_all(env, question, &meta, &mut out).await?;
    if question.repair && damaged > 0 {
        writeln!(out, "repairing: what a start would do")?;
        for shard in (0..meta.shards).map(ShardId) {
            repair(env, &question.data, shard, meta.store_id).await?;
        }
        damaged = check_all(env, question, &meta, &mut out).await?;
    }
    Ok((out, damaged))
}

async fn check_all(
    env: &GlommioEnv,
    question: &Question,
    meta: &StoreMeta,
    out: &mut String,
) -> anyhow::Result<usize> {
    let mut damaged = 0;
    for id in (0..meta.shards).map(ShardId) {
        let dir = StoreMeta::shard_dir(&question.data, id);
        let found = inspect_shard(env, &dir, id, meta.store_id).await?;
        damaged += found.damage.len();
        show(out, id, &dir, &found)?;
    }
    let dir = question.data.join("meta");
    // Only a broker has one, from its first start on.
    if dir.is_dir() {
        let (entries, found) = inspect_metadata(env, &dir).await?;
        damaged += found.len();
        writeln!(out, "{entries} topics, groups and their permissions in {}", dir.display())?;
        show_damage(out, &found)?;
    }
    Ok(damaged)
}

fn show(out: &mut String, id: ShardId, dir: &Path, found: &Inspection) -> std::fmt::Result {
    let Inspection { segments, log: (from, to), frames, records, queues, runs, entries, damage } = found;
    writeln!(out, "shard {} in {}", id.0, dir.display())?;
    writeln!(out, "  log {from}..{to}: {} segments, {frames} frames, {records} records", segments.len())?;
    for segment in segments {
        writeln!(out, "    {} start {} length {}", segment.path.display(), segment.start, segment.len)?;
    }
    writeln!(out, "  {runs} index runs, {entries} entries of marks and consumer offsets")?;
    let mut topics: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for ((topic, _), facts) in queues {
        let counts = topics.entry(topic).or_default();
        *counts = (counts.0 + facts.messages, counts.1 + facts.bytes);
    }
    for (topic, (messages, bytes)) in topics {
        writeln!(out, "  {topic}: {messages} messages, {bytes} bytes")?;
    }
    for ((topic, queue), facts) in queues {
        let (first, last, messages, bytes) = (facts.first, facts.last, facts.messages, facts.bytes);
        writeln!(
            out,
            "  {topic} queue {queue}: {messages} messages, offsets {first}..={last}, {bytes} bytes"
        )?;
    }
    show_damage(out, damage)
}

fn show_damage(out: &mut String, damage: &[Damage]) -> std::fmt::Result {
    damage.iter().try_for_each(|damage| writeln!(out, "  DAMAGE {damage}"))
}

fn show_record(out: &mut String, record: &[u8]) -> anyhow::Result<()> {
    let view = RecordView::decode(record).map_err(|error| anyhow!("{error}"))?;
    let sound = if view.check_body().is_ok() { "fits" } else { "DOES NOT FIT" };
    writeln!(out, "topic {} queue {} offset {}", view.topic, view.queue_id, view.queue_offset)?;
    writeln!(out, "physical offset {} size {}", view.physical_offset, record.len())?;
    writeln!(out, "store time {} sysFlag {} flag {}", view.store_timestamp, view.sys_flag, view.flag)?;
    writeln!(out, "body of {} bytes, its checksum {sound}", view.body.len())?;
    for property in view.properties.split('\u{2}').filter(|property| !property.is_empty()) {
        writeln!(out, "property {}", property.replacen('\u{1}', " = ", 1))?;
    }
    Ok(())
}

/// Opens the shard and its consumer offsets as a start does, and closes them.
async fn repair(env: &GlommioEnv, data: &Path, id: ShardId, store_id: u64) -> Result<(), OpenError> {
    let dir = StoreMeta::shard_dir(data, id);
    let options = ShardOptions {
        id,
        store_id,
        dir: dir.clone(),
        sync_flush: true,
        flush_interval_ms: 500,
        segment_size: 128 << 20,
        max_record_size: 8 << 20,
        tail_memory: 4 << 20,
        staged_limit: 32 << 20,
        disk_watermark_percent: 99,
        strict: false,
        waiting_in_memory: ringmq_engine::WAITING_IN_MEMORY,
        shadow: ringmq_engine::SHADOW_LEN,
        lmq_limit: None,
    };
    let shard = Shard::open(env.clone(), options).await?;
    let offsets = shard.open_table(OFFSETS, &mut |_, _| {}).await;
    shard.close().await;
    offsets.map(drop)
}

#[cfg(test)]
mod tests {
    use ringmq_engine::MetaLog;

    use super::*;

    #[test]
    fn a_repair_mends_consumer_offsets_as_a_start_does() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_owned();
        run_cores(1, &CoreOptions::unpinned(), move |_, env| async move {
            let (id, dir) = (ShardId(0), StoreMeta::shard_dir(&data, ShardId(0)));
            repair(&env, &data, id, 1).await.unwrap();
            let offsets = MetaLog::open(env.clone(), &dir, "offsets", &mut |_, _| {}).await.unwrap();
            for key in ["whole", "damaged", "behind it"] {
                offsets.put(key.as_bytes(), b"offset");
                offsets.flush().await.unwrap();
            }
            let path = dir.join("offsets.a");
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(7).position(|bytes| bytes == b"damaged").unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let damage = async || inspect_shard(&env, &dir, id, 1).await.unwrap().damage.len();
            assert_eq!(damage().await, 1);
            repair(&env, &data, id, 1).await.unwrap();
            assert_eq!(damage().await, 0);
        })
        .unwrap()
        .join();
    }
}
