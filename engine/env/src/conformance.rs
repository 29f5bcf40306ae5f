//! What every backend has to do: each function is one promise of the traits, run on all of them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use crate::{AppendBuf, Env, File, IoSlice, Listener, OpenOptions, Stream, StreamReader, StreamWriter};

const LONG: Duration = Duration::from_secs(10);
const RW: OpenOptions =
    OpenOptions { write: true, create: true, create_new: false, dsync: false, direct: false };

fn pattern(len: usize, seed: u8) -> IoSlice {
    let mut buf = AppendBuf::with_capacity(len);
    for (i, byte) in buf.append(len).iter_mut().enumerate() {
        *byte = (i as u8).wrapping_mul(31).wrapping_add(seed);
    }
    buf.publish();
    buf.slice(0, len)
}

/// All of it, in an empty directory and on a free address.
pub(crate) async fn everything<E: Env>(env: &E, dir: &Path, addr: SocketAddr) {
    files_keep_what_is_written(env, dir).await;
    what_is_written_now_shows_at_once(env, dir).await;
    direct_files_write_and_read_blocks(env, dir).await;
    opening_follows_the_options(env, dir).await;
    reads_end_with_the_file(env, dir).await;
    allocation_extends_with_zeroes(env, dir).await;
    many_operations_are_in_flight_at_once(env, dir).await;
    directories_list_rename_and_remove(env, dir).await;
    a_dropped_read_harms_nobody(env, dir).await;
    huge_memory_is_empty(env).await;
    time_passes_and_timers_are_in_order(env).await;
    spawned_tasks_start_later_and_run_to_their_end(env).await;
    random_numbers_differ(env);
    streams_carry_bytes_both_ways(env, addr).await;
    large_writes_wait_for_the_reader(env, addr).await;
    the_end_of_a_stream_is_seen(env, addr).await;
    half_a_stream_outlives_the_other(env, addr).await;
    a_closer_ends_a_waiting_read(env, addr).await;
    many_connections_at_once(env, addr).await;
    connecting_to_nobody_fails(env, addr).await;
    a_closed_listener_stops_accepting(env, addr).await;
}

async fn files_keep_what_is_written<E: Env>(env: &E, dir: &Path) {
    let path = dir.join("kept");
    let file = env.open(&path, RW).await.unwrap();
    file.write_at(pattern(1000, 1), 0).await.unwrap();
    file.write_at(pattern(500, 2), 777).await.unwrap();
    assert_eq!(file.size().await.unwrap(), 1277);
    file.sync().await.unwrap();
    let again = env.open(&path, OpenOptions::default()).await.unwrap();
    drop(file);
    assert_eq!(&*again.read_at(0, 777).await.unwrap(), &pattern(1000, 1)[..777]);
    assert_eq!(&*again.read_at(777, 500).await.unwrap(), &*pattern(500, 2));
    assert!(again.write_at(pattern(1, 1), 0).await.is_err(), "opened for reading only");
}

async fn what_is_written_now_shows_at_once<E: Env>(env: &E, dir: &Path) {
    let path = dir.join("now");
    let file = env.open(&path, RW).await.unwrap();
    file.write_at(pattern(1000, 1), 0).await.unwrap();
    file.write_now(&pattern(500, 2), 77).unwrap();
    let again = env.open(&path, OpenOptions::default()).await.unwrap();
    assert_eq!(&*again.read_at(77, 500).await.unwrap(), &*pattern(500, 2));
    assert_eq!(&*again.read_at(577, 500).await.unwrap(), &pattern(1000, 1)[577..]);
    assert!(again.write_now(&[1], 0).is_err(), "opened for reading only");
}

async fn direct_files_write_and_read_blocks<E: Env>(env: &E, dir: &Path) {
    let options = OpenOptions { direct: true, dsync: true, ..RW };
    let file = env.open(&dir.join("direct"), options).await.unwrap();
    let block = file.alignment();
    assert!(block >= 512 && block.is_power_of_two());
    let data = pattern(block * 9, 3);
    file.write_at(data.slice(0, block * 8), 0).await.unwrap();
    file.write_at(data.slice(block * 8, block), block as u64 * 8).await.unwrap();
    assert_eq!(&*file.read_at(block as u64, block * 8).await.unwrap(), &data[block..]);
    assert_eq!(file.read_at(block as u64 * 8, block * 4).await.unwrap().len(), block, "to the end");
}

async fn opening_follows_the_options<E: Env>(env: &E, dir: &Path) {
    let path = dir.join("opened");
    let missing = env.open(&path, OpenOptions { create: false, ..RW }).await.err().unwrap();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let new = OpenOptions { create_new: true, ..RW };
    env.open(&path, new).await.unwrap().write_at(pattern(5, 1), 0).await.unwrap();
    let exists = env.open(&path, new).await.err().unwrap();
    assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(env.open(&path, RW).await.unwrap().size().await.unwrap(), 5, "create keeps what is there");
    assert!(env.open(&dir.join("no/such/dir"), RW).await.is_err());
}

async fn reads_end_with_the_file<E: Env>(env: &E, dir: &Path) {
    let file = env.open(&dir.join("short"), RW).await.unwrap();
    assert_eq!(file.read_at(0, 10).await.unwrap().len(), 0);
    file.write_at(pattern(100, 4), 0).await.unwrap();
    assert_eq!(&*file.read_at(90, 4096).await.unwrap(), &pattern(100, 4)[90..]);
    assert_eq!(file.read_at(100, 1).await.unwrap().len(), 0);
    file.set_len(40).await.unwrap();
    assert_eq!(file.read_at(0, 100).await.unwrap().len(), 40);
    file.set_len(60).await.unwrap();
    assert_eq!(&file.read_at(0, 100).await.unwrap()[40..], &[0; 20]);
}

async fn allocation_extends_with_zeroes<E: Env>(env: &E, dir: &Path) {
    let file = env.open(&dir.join("allocated"), RW).await.unwrap();
    file.write_at(pattern(10, 5), 0).await.unwrap();
    file.allocate(0, 100_000).await.unwrap();
    assert_eq!(file.size().await.unwrap(), 100_000);
    let read = file.read_at(0, 100_000).await.unwrap();
    assert_eq!(&read[..10], &*pattern(10, 5));
    assert!(read[10..].iter().all(|byte| *byte == 0));
    let space = env.disk_space(dir).await.unwrap();
    assert!(space.total >= space.available && space.available > 0);
}

async fn huge_memory_is_empty<E: Env>(env: &E) {
    for capacity in [1, 100_000, 1 << 20, (1 << 20) + 1] {
        let mut buf = env.huge_memory(capacity).await;
        assert!(buf.is_empty() && buf.capacity() >= capacity && buf.is_huge());
        assert_eq!(buf.append(capacity), vec![0; capacity]);
    }
}

async fn many_operations_are_in_flight_at_once<E: Env>(env: &E, dir: &Path) {
    const WRITERS: usize = 300;
    let file = env.open(&dir.join("many"), RW).await.unwrap();
    let done = Rc::new(Cell::new(0));
    for i in 0..WRITERS {
        let (file, done) = (file.clone(), Rc::clone(&done));
        env.spawn(async move {
            file.write_at(pattern(512, i as u8), i as u64 * 512).await.unwrap();
            done.set(done.get() + 1);
        });
    }
    until(env, || done.get() == WRITERS).await;
    for i in 0..WRITERS {
        assert_eq!(&*file.read_at(i as u64 * 512, 512).await.unwrap(), &*pattern(512, i as u8));
    }
}

async fn directories_list_rename_and_remove<E: Env>(env: &E, dir: &Path) {
    let sub = dir.join("a/b/c");
    env.create_dir_all(&sub).await.unwrap();
    env.create_dir_all(&sub).await.unwrap();
    assert!(env.read_dir(&sub).await.unwrap().is_empty());
    for name in ["two", "one", "three"] {
        env.open(&sub.join(name), RW).await.unwrap().write_at(pattern(name.len(), 0), 0).await.unwrap();
    }
    env.rename(&sub.join("one"), &sub.join("three")).await.unwrap();
    env.remove_file(&sub.join("two")).await.unwrap();
    env.create_dir_all(&sub.join("dir")).await.unwrap();
    env.sync_dir(&sub).await.unwrap();
    let entries = env.read_dir(&sub).await.unwrap();
    let entries: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.len, e.is_dir)).collect();
    assert_eq!(entries, [("dir", 0, true), ("three", 3, false)]);
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(env.remove_file(&sub.join("two")).await), io::ErrorKind::NotFound);
    assert_eq!(kind(env.rename(&sub.join("two"), &sub.join("x")).await), io::ErrorKind::NotFound);
    assert_eq!(env.read_dir(&dir.join("nowhere")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

async fn a_dropped_read_harms_nobody<E: Env>(env: &E, dir: &Path) {
    let file = env.open(&dir.join("dropped"), RW).await.unwrap();
    file.write_at(pattern(4096, 6), 0).await.unwrap();
    for _ in 0..50 {
        let mut read = Box::pin(file.read_at(0, 4096));
        std::future::poll_fn(|cx| {
            let _ = read.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        drop(read);
    }
    assert_eq!(&*file.read_at(0, 4096).await.unwrap(), &*pattern(4096, 6));
}

async fn time_passes_and_timers_are_in_order<E: Env>(env: &E) {
    let order = Rc::new(RefCell::new(Vec::new()));
    let (start, wall) = (env.now(), env.wall_ms());
    for ms in [30u64, 10, 20] {
        let (env_of_task, order) = (env.clone(), Rc::clone(&order));
        env.spawn(async move {
            env_of_task.sleep(Duration::from_millis(ms)).await;
            order.borrow_mut().push(ms);
        });
    }
    until(env, || order.borrow().len() == 3).await;
    assert_eq!(*order.borrow(), [10, 20, 30]);
    assert!(env.now().since(start) >= Duration::from_millis(30));
    assert!(env.wall_ms() - wall >= 29);
}

async fn spawned_tasks_start_later_and_run_to_their_end<E: Env>(env: &E) {
    let runs = Rc::new(Cell::new(0));
    {
        let (env_of_task, runs) = (env.clone(), Rc::clone(&runs));
        env.spawn(async move {
            for _ in 0..10 {
                runs.set(runs.get() + 1);
                env_of_task.yield_now().await;
            }
        });
    }
    assert_eq!(runs.get(), 0, "a spawned task does not run inside the caller");
    until(env, || runs.get() == 10).await;
}

fn random_numbers_differ<E: Env>(env: &E) {
    let numbers: std::collections::HashSet<u64> = (0..100).map(|_| env.random()).collect();
    assert_eq!(numbers.len(), 100);
}

/// A connected pair, and the listener's address.
async fn pair<E: Env>(env: &E, addr: SocketAddr) -> (E::Stream, E::Stream) {
    let listener = env.listen(addr).await.unwrap();
    assert_ne!(listener.local_addr().port(), 0);
    let client = env.connect(listener.local_addr(), LONG).await.unwrap();
    let server = listener.accept().await.unwrap();
    assert_eq!(client.peer_addr(), server.local_addr());
    assert_eq!(client.local_addr(), server.peer_addr());
    listener.close();
    (client, server)
}

async fn read_exact(reader: &mut impl StreamReader, len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len);
    while buffer.len() < len {
        assert_ne!(reader.read(&mut buffer).await.unwrap(), 0, "the stream ended early");
    }
    buffer
}

async fn streams_carry_bytes_both_ways<E: Env>(env: &E, addr: SocketAddr) {
    let (client, server) = pair(env, addr).await;
    let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
        (client.into_split(), server.into_split());
    for round in 0..100 {
        let text = format!("ping {round}");
        let parts = [io::IoSlice::new(b""), io::IoSlice::new(text.as_bytes()), io::IoSlice::new(b"!")];
        client_out.write_all(&parts).await.unwrap();
        let got = read_exact(&mut server_in, text.len() + 1).await;
        assert_eq!(got, format!("ping {round}!"));
        server_out.write_all(&[io::IoSlice::new(&got)]).await.unwrap();
        assert_eq!(read_exact(&mut client_in, got.len()).await, got);
    }
    client_out.write_all(&[]).await.unwrap();
}

async fn large_writes_wait_for_the_reader<E: Env>(env: &E, addr: SocketAddr) {
    const PARTS: usize = 3000;
    let (client, server) = pair(env, addr).await;
    let data = pattern(PARTS * 2000, 7);
    let written = Rc::new(Cell::new(false));
    {
        let (data, written) = (data.clone(), Rc::clone(&written));
        env.spawn(async move {
            let parts: Vec<_> = data.chunks(2000).map(io::IoSlice::new).collect();
            client.into_split().1.write_all(&parts).await.unwrap();
            written.set(true);
        });
    }
    let (mut reader, _writer) = server.into_split();
    env.sleep(Duration::from_millis(20)).await;
    assert!(!written.get(), "nobody has read anything yet");
    assert_eq!(read_exact(&mut reader, data.len()).await, data[..]);
    assert_eq!(reader.read(&mut BytesMut::with_capacity(1)).await.unwrap(), 0, "both halves were dropped");
    assert!(written.get());
}

async fn the_end_of_a_stream_is_seen<E: Env>(env: &E, addr: SocketAddr) {
    let (client, server) = pair(env, addr).await;
    let (mut reader, mut writer) = server.into_split();
    client.into_split().1.write_all(&[io::IoSlice::new(b"bye")]).await.unwrap();
    assert_eq!(read_exact(&mut reader, 3).await, "bye");
    assert_eq!(reader.read(&mut BytesMut::with_capacity(10)).await.unwrap(), 0);
    let mut failed = false;
    for _ in 0..100 {
        failed |= writer.write_all(&[io::IoSlice::new(b"anybody?")]).await.is_err();
        env.sleep(Duration::from_millis(1)).await;
    }
    assert!(failed, "writing to a closed stream fails sooner or later");
}

async fn half_a_stream_outlives_the_other<E: Env>(env: &E, addr: SocketAddr) {
    let (client, server) = pair(env, addr).await;
    let ((client_in, mut client_out), (mut server_in, _server_out)) =
        (client.into_split(), server.into_split());
    drop(client_in);
    client_out.write_all(&[io::IoSlice::new(b"still here")]).await.unwrap();
    assert_eq!(read_exact(&mut server_in, 10).await, "still here");
    drop(client_out);
    assert_eq!(server_in.read(&mut BytesMut::with_capacity(1)).await.unwrap(), 0);
}

async fn a_closer_ends_a_waiting_read<E: Env>(env: &E, addr: SocketAddr) {
    let (client, server) = pair(env, addr).await;
    let ((mut client_in, client_out), (mut server_in, _server_out)) =
        (client.into_split(), server.into_split());
    let closer = client_out.closer();
    let env_of_task = env.clone();
    env.spawn(async move {
        env_of_task.sleep(Duration::from_millis(5)).await;
        closer.close();
        closer.close();
    });
    let ended = |read: io::Result<usize>| read.map_or(true, |n| n == 0);
    assert!(ended(client_in.read(&mut BytesMut::with_capacity(1)).await));
    assert!(ended(server_in.read(&mut BytesMut::with_capacity(1)).await), "the other end sees it too");
    let late = client_out.closer();
    drop((client_in, client_out));
    late.close();
}

async fn many_connections_at_once<E: Env>(env: &E, addr: SocketAddr) {
    const CLIENTS: usize = 60;
    let listener = env.listen(addr).await.unwrap();
    let (addr, done) = (listener.local_addr(), Rc::new(Cell::new(0)));
    for i in 0..CLIENTS {
        let (env_of_task, done) = (env.clone(), Rc::clone(&done));
        env.spawn(async move {
            let (mut reader, mut writer) = env_of_task.connect(addr, LONG).await.unwrap().into_split();
            for _ in 0..5 {
                writer.write_all(&[io::IoSlice::new(&[i as u8; 100])]).await.unwrap();
                assert_eq!(read_exact(&mut reader, 100).await, [i as u8; 100][..]);
            }
            done.set(done.get() + 1);
        });
    }
    for _ in 0..CLIENTS {
        let (mut reader, mut writer) = listener.accept().await.unwrap().into_split();
        env.spawn(async move {
            let mut buffer = BytesMut::with_capacity(64);
            while reader.read(&mut buffer).await.unwrap() > 0 {
                writer.write_all(&[io::IoSlice::new(&buffer)]).await.unwrap();
                buffer.clear();
            }
        });
    }
    until(env, || done.get() == CLIENTS).await;
}

async fn connecting_to_nobody_fails<E: Env>(env: &E, addr: SocketAddr) {
    let listener = env.listen(addr).await.unwrap();
    let addr = listener.local_addr();
    drop(listener);
    env.sleep(Duration::from_millis(5)).await;
    let refused = env.connect(addr, LONG).await.err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(env.resolve(&addr.to_string()).await.unwrap(), [addr]);
}

async fn a_closed_listener_stops_accepting<E: Env>(env: &E, addr: SocketAddr) {
    let listener = Rc::new(env.listen(addr).await.unwrap());
    let ended = Rc::new(Cell::new(false));
    {
        let (listener, ended) = (Rc::clone(&listener), Rc::clone(&ended));
        env.spawn(async move {
            assert!(listener.accept().await.is_err());
            ended.set(true);
        });
    }
    env.sleep(Duration::from_millis(5)).await;
    assert!(!ended.get());
    listener.close();
    until(env, || ended.get()).await;
    assert!(env.connect(listener.local_addr(), LONG).await.is_err());
}

/// Waits until `done`, for a bounded time.
pub(crate) async fn until<E: Env>(env: &E, done: impl Fn() -> bool) {
    let deadline = env.now().after(LONG);
    while !done() {
        assert!(env.now() < deadline, "not done in {LONG:?}");
        env.sleep(Duration::from_millis(1)).await;
    }
}
