//! Just enough of the remoting protocol to make load without being the limit: requests are stamped from a
//! template, answers are scanned for the few fields that matter. The full codec is `ringmq-protocol`.

mod answer;
mod request;
mod stored;

pub use answer::{Answer, Request, json_number, number_after};
pub use request::{
    MIN_BODY, PullTemplate, SendShape, SendTemplate, max_offset_request, runtime_info_request,
};
pub use stored::{stamps, write_record};

/// Response code of success.
pub const SUCCESS: i32 = 0;
/// Response code of a pull that found nothing new in its time.
pub const PULL_NOT_FOUND: i32 = 19;
/// Response code of a pull to be repeated at once.
pub const PULL_RETRY: i32 = 20;
/// Response code of a pull whose offset is out of range; the answer names the next one.
pub const PULL_OFFSET_MOVED: i32 = 21;
/// Request code of a pull.
pub const PULL_MESSAGE: i32 = 11;
/// Request code of the question for a queue's max offset.
pub const GET_MAX_OFFSET: i32 = 30;

/// Width of the opaque in a template: zero-padded numbers are not JSON, so it starts with a non-zero digit.
const OPAQUE_DIGITS: usize = 10;
/// Opaques count from here, which keeps them at ten digits and within a positive i32.
const OPAQUE_BASE: u32 = 1_000_000_000;

/// The frame of a request: length, header length, header, body.
fn frame(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + header.len() + body.len());
    bytes.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Writes `number` over all of `out`, in decimal digits with leading zeroes.
fn write_digits(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
