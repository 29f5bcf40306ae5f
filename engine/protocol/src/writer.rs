//! Writes frames with a JSON header straight into a buffer: no map, no intermediate strings.

use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};

use crate::frame::{LENGTH_BYTES, PREFIX_BYTES};
use crate::header::SerializeType;
use crate::json::write;
use crate::language::Language;
use crate::version;

/// The longest header that the frame's prefix can tell (24 bits).
const MAX_HEADER: usize = (1 << 24) - 1;

/// Room that is made for a header at once.
const USUAL_HEADER: usize = 512;

/// What a header holds behind its ext fields.
#[derive(Clone, Copy, Debug)]
pub struct Trailer<'a> {
    /// See [`crate::header::FLAG_RESPONSE`] and [`crate::header::FLAG_ONEWAY`].
    pub flag: i32,
    /// The sender's language.
    pub language: Language,
    /// Ties a response to its request.
    pub opaque: i32,
    /// Free text.
    pub remark: Option<&'a str>,
    /// The sender's version ordinal.
    pub version: i32,
}

impl Trailer<'_> {
    /// Of a request that wants an answer, from RingMQ.
    pub fn request(opaque: i32) -> Trailer<'static> {
        Trailer { flag: 0, language: Language::Java, opaque, remark: None, version: version::CURRENT }
    }
}

impl<'a> Trailer<'a> {
    /// Of a response, from RingMQ. Its language is JAVA, as the Java broker's: some clients know no other server.
    pub fn response(opaque: i32, remark: Option<&'a str>) -> Trailer<'a> {
        let flag = crate::header::FLAG_RESPONSE;
        Trailer { flag, language: Language::Java, opaque, remark, version: version::CURRENT }
    }
}

/// Takes the fields of a request's own header, in the order of the wire.
pub trait FieldSink {
    /// A text.
    fn str(&mut self, name: &'static str, value: &str);
    /// A number.
    fn int(&mut self, name: &'static str, value: i64);
    /// A boolean.
    fn bool(&mut self, name: &'static str, value: bool) {
        self.str(name, if value { "true" } else { "false" });
    }
}

/// A frame being written: prefix and header up to the ext fields are there, [`HeaderWriter::finish`] does the rest.
///
/// Keys come in the alphabetical order of Java's own headers.
#[derive(Debug)]
pub struct HeaderWriter<'b> {
    out: &'b mut BytesMut,
    /// Where the frame starts in `out`.
    start: usize,
    /// Whether the object of ext fields is open.
    has_ext: bool,
}

impl<'b> HeaderWriter<'b> {
    /// Begins a frame at the end of `out`.
    pub fn begin(out: &'b mut BytesMut, code: i32) -> HeaderWriter<'b> {
        let start = out.len();
        out.reserve(USUAL_HEADER);
        out.put_slice(&[0; PREFIX_BYTES]);
        out.put_slice(b"{\"code\":");
        write::int(out, i64::from(code));
        HeaderWriter { out, start, has_ext: false }
    }

    /// Adds an ext field.
    pub fn ext_str(&mut self, name: &str, value: &str) {
        self.ext_name(name);
        write::string(self.out, value);
    }

    /// Adds an ext field with a number, written as a string like all ext fields.
    pub fn ext_int(&mut self, name: &str, value: i64) {
        self.ext_name(name);
        self.out.put_u8(b'"');
        write::int(self.out, value);
        self.out.put_u8(b'"');
    }

    fn ext_name(&mut self, name: &str) {
        self.out.put_slice(if self.has_ext { b"," } else { b",\"extFields\":{" });
        self.has_ext = true;
        write::string(self.out, name);
        self.out.put_u8(b':');
    }

    /// Ends the header and fills the lengths in for a body of `body_len` bytes, which the caller sends right behind.
    /// Returns the bytes written to the buffer for this frame.
    ///
    /// Panics if the frame gets longer than its length field can tell (2 GiB; 16 MiB for the header).
    pub fn finish(self, trailer: &Trailer<'_>, body_len: usize) -> usize {
        let out = self.out;
        if self.has_ext {
            out.put_u8(b'}');
        }
        out.put_slice(b",\"flag\":");
        write::int(out, i64::from(trailer.flag));
        out.put_slice(b",\"language\":\"");
        out.put_slice(trailer.language.name().as_bytes());
        out.put_slice(b"\",\"opaque\":");
        write::int(out, i64::from(trailer.opaque));
        if let Some(remark) = trailer.remark {
            out.put_slice(b",\"remark\":");
            write::string(out, remark);
        }
        out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        write::int(out, i64::from(trailer.version));
        out.put_u8(b'}');
        fill_prefix(&mut out[self.start..], SerializeType::Json, body_len);
        out.len() - self.start
    }
}

impl FieldSink for HeaderWriter<'_> {
    fn str(&mut self, name: &'static str, value: &str) {
        self.ext_str(name, value);
    }

    fn int(&mut self, name: &'static str, value: i64) {
        self.ext_int(name, value);
    }
}

/// A whole short frame with a JSON header, appended to a buffer that has room for all of it. Panics beyond that room, which
/// is its size at least.
pub(crate) struct Scratch<'b> {
    out: &'b mut BytesMut,
    /// Bytes of the frame that are written, behind those of the buffer.
    len: usize,
}

impl<'b> Scratch<'b> {
    /// Bytes that it may take.
    const SIZE: usize = 512;

    /// Prefix and code.
    #[inline]
    pub(crate) fn begin(out: &'b mut BytesMut, code: i32) -> Scratch<'b> {
        out.reserve(Scratch::SIZE);
        let mut scratch = Scratch { out, len: 0 };
        scratch.literal(&[0; PREFIX_BYTES]);
        scratch.literal(b"{\"code\":");
        scratch.int(i64::from(code));
        scratch
    }

    /// Where the next `len` bytes go.
    #[inline(always)]
    fn next(&mut self, len: usize) -> &mut [MaybeUninit<u8>] {
        let at = self.len;
        self.len += len;
        &mut self.out.spare_capacity_mut()[at..][..len]
    }

    /// Appends text whose length the compiler knows, without a call.
    #[inline(always)]
    pub(crate) fn literal<const N: usize>(&mut self, text: &[u8; N]) {
        self.next(N).write_copy_of_slice(text);
    }

    /// Appends text; quickest if it is an id, which nearly all have 32 digits.
    #[inline(always)]
    pub(crate) fn put(&mut self, text: &[u8]) {
        match text.as_array::<32>() {
            Some(id) => self.literal(id),
            None => {
                self.next(text.len()).write_copy_of_slice(text);
            }
        }
    }

    /// Appends an integer.
    #[inline(always)]
    pub(crate) fn int(&mut self, value: i64) {
        if let 0..10 = value {
            return self.literal(&[b'0' + value as u8]);
        }
        self.put(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Ends a response without remark and body, as [`Trailer::response`] and [`HeaderWriter::finish`] do.
    #[inline]
    pub(crate) fn finish_response(mut self, opaque: i32) {
        const { assert!(crate::header::FLAG_RESPONSE == 1) };
        self.literal(b",\"flag\":1,\"language\":\"JAVA\",\"opaque\":");
        self.int(i64::from(opaque));
        self.literal(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        self.int(i64::from(version::CURRENT));
        self.literal(b"}");
        let start = self.out.len();
        // SAFETY: `next` is the only place where `len` grows, by bytes that lie in the capacity and that its callers write.
        unsafe { self.out.set_len(start + self.len) };
        fill_prefix(&mut self.out[start..], SerializeType::Json, 0);
    }
}

/// Fills in both lengths of a frame of which `head` is the prefix and the header.
pub(crate) fn fill_prefix(head: &mut [u8], serialize: SerializeType, body_len: usize) {
    let header_len = head.len() - PREFIX_BYTES;
    assert!(header_len <= MAX_HEADER, "a header of {header_len} bytes does not fit a frame");
    let length = i32::try_from(head.len() - LENGTH_BYTES + body_len).expect("a frame is below 2 GiB");
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..8].copy_from_slice(&((header_len as u32) | u32::from(serialize.code()) << 24).to_be_bytes());
}
