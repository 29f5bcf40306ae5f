//! What a hostile client does with one connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::random::Random;

/// Longest that an attack waits for the broker to answer or close.
const PATIENCE: Duration = Duration::from_millis(200);

type Attack = fn(&mut Random, &mut TcpStream) -> std::io::Result<()>;

/// The kinds of attack, each on a connection of its own.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("random bytes", random_bytes),
    ("a mutated frame", mutated_frame),
    ("a truncated frame, then gone", truncated_frame),
    ("an oversized length", oversized_length),
    ("a header beyond its frame", header_beyond_frame),
    ("a header of many fields", many_fields),
    ("a header that is not UTF-8", not_utf8),
    ("fields of wrong types", wrong_types),
    ("a deeply nested header", deep_nesting),
    ("one byte at a time", one_byte_at_a_time),
    ("answers that nobody reads", unread_answers),
    ("any code with any fields", any_code),
];

/// Carries out attack `index`. Errors of the connection are what the broker's defence looks like from here.
pub fn carry_out(index: usize, addr: SocketAddr, random: &mut Random) {
    let Ok(mut stream) = TcpStream::connect_timeout(&addr, Duration::from_secs(5)) else { return };
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let _ = (ATTACKS[index].1)(random, &mut stream);
}

fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = ((4 + header.len() + body.len()) as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header);
    frame.extend_from_slice(body);
    frame
}

fn send_header(code: u32) -> Vec<u8> {
    format!(
        "{{\"code\":{code},\"extFields\":{{\"a\":\"g\",\"b\":\"Hostile\",\"c\":\"TBW102\",\"d\":\"4\",\"e\":\"0\",\
         \"f\":\"0\",\"g\":\"1\",\"h\":\"0\",\"i\":\"\",\"j\":\"0\",\"k\":\"false\",\"topic\":\"Hostile\",\
         \"queueId\":\"0\",\"queueOffset\":\"0\",\"consumerGroup\":\"h\",\"maxMsgNums\":\"32\",\"sysFlag\":\"4\",\
         \"commitOffset\":\"0\",\"suspendTimeoutMillis\":\"1000\",\"subscription\":\"*\",\"subVersion\":\"0\"}},\
         \"flag\":0,\"language\":\"JAVA\",\"opaque\":1,\"serializeTypeCurrentRPC\":\"JSON\",\"version\":401}}"
    )
    .into_bytes()
}

fn write_and_listen(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    stream.read(&mut [0; 4096]).map(drop)
}

fn random_bytes(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let len = random.below(4096) as usize + 1;
    let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    write_and_listen(stream, &bytes)
}

fn mutated_frame(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = frame(&send_header(310), b"hostile body");
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
    }
    write_and_listen(stream, &bytes)
}

fn truncated_frame(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let bytes = frame(&send_header(310), &[7; 2000]);
    stream.write_all(&bytes[..random.below(bytes.len() as u64) as usize])
}

fn oversized_length(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let length = (1 << 24) + random.below(1 << 30) as u32;
    write_and_listen(stream, &[length.to_be_bytes(), 16u32.to_be_bytes()].concat())
}

fn header_beyond_frame(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = frame(&send_header(310), b"");
    bytes[4..8].copy_from_slice(&(random.below(1 << 24) as u32).to_be_bytes());
    write_and_listen(stream, &bytes)
}

fn many_fields(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let count = if random.below(20) == 0 { 1_000_000 } else { 4_000 };
    let fields: Vec<String> = (0..count).map(|i| format!("\"f{i}\":\"v\"")).collect();
    let header = format!("{{\"code\":310,\"extFields\":{{{}}},\"flag\":0,\"opaque\":1}}", fields.join(","));
    write_and_listen(stream, &frame(header.as_bytes(), b""))
}

fn not_utf8(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut header = send_header(310);
    for _ in 0..10 {
        let at = random.below(header.len() as u64) as usize;
        header[at] = 0x80 | random.next() as u8;
    }
    write_and_listen(stream, &frame(&header, b""))
}

fn wrong_types(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    const VALUES: &[&str] =
        &["null", "{}", "[]", "\"x\"", "-1", "1e400", "9223372036854775808", "true", "\"\""];
    let mut pick = || VALUES[random.below(VALUES.len() as u64) as usize];
    let header = format!(
        "{{\"code\":{},\"extFields\":{{\"a\":{},\"b\":{},\"e\":{},\"g\":{}}},\"flag\":{},\"opaque\":{}}}",
        pick(),
        pick(),
        pick(),
        pick(),
        pick(),
        pick(),
        pick()
    );
    write_and_listen(stream, &frame(header.as_bytes(), b""))
}

fn deep_nesting(_: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let header = format!("{{\"code\":310,\"x\":{}", "[".repeat(60_000));
    write_and_listen(stream, &frame(header.as_bytes(), b""))
}

fn one_byte_at_a_time(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let bytes = frame(&send_header(310), b"slow");
    let end = random.below(bytes.len() as u64) as usize;
    for byte in &bytes[..end] {
        stream.write_all(std::slice::from_ref(byte))?;
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

fn unread_answers(_: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    let bytes = frame(&send_header(11), b"").repeat(200);
    stream.write_all(&bytes)?;
    std::thread::sleep(PATIENCE);
    Ok(())
}

fn any_code(random: &mut Random, stream: &mut TcpStream) -> std::io::Result<()> {
    const CODES: &[u32] = &[200_050, 200_051, 200_053, 1_001, 2_001, 3_001];
    let code = match random.below(8) {
        0 => CODES[random.below(CODES.len() as u64) as usize],
        _ => random.below(420) as u32,
    };
    let body: &[u8] = match random.below(3) {
        0 => b"",
        1 => b"{\"clientID\":\"h\",\"mqSet\":[{}],\"consumerDataSet\":[{\"groupName\":null}]}",
        _ => b"[[[{{{not json",
    };
    write_and_listen(stream, &frame(&send_header(code), body))
}
