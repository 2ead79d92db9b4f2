//! Heavy statements, clients that leave, and what is no message at all.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::client::{Answer, Client, Served, greeting, message, request, served, texts};

/// Does not end while a test runs, and does not yield often.
const HEAVY: &str =
    "select sum(a.value * b.value) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";

fn cancelled(answer: Answer) {
    let error = answer.unwrap_err();
    assert_eq!(error.code(), "57014", "{error:?}");
}

/// Waits for what must come, however slow the machine.
fn eventually(what: &str, is: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if is() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("never: {what}");
}

#[test]
fn heavy_statements_stand_in_nobodys_way_and_can_be_cancelled() {
    let served = served();
    let cores = available_parallelism().map_or(1, usize::from);
    let mut busy: Vec<Client> = (0..cores + 2).map(|_| Client::of(&served)).collect();
    for client in &mut busy {
        client.begin(HEAVY);
    }
    let mut other = Client::of(&served);
    assert_eq!(texts(other.ask("select name from music where n = 1")), ["drift"]);
    assert_eq!(texts(other.prepared("select 1", &[])), ["1"]);
    for mut client in busy {
        client.cancel(&served);
        cancelled(client.answer());
        assert_eq!(texts(client.ask("select 2")), ["2"]);
    }
    // Who cancels must know the key; and nothing happens where nothing is at work.
    other.begin(HEAVY);
    let known = std::mem::take(&mut other.name);
    other.name = [&known[..4], &[!known[4]], &known[5..]].concat();
    other.cancel(&served);
    other.name = known;
    assert_eq!(texts(Client::of(&served).ask("select 3")), ["3"]);
    other.cancel(&served);
    cancelled(other.answer());
    other.cancel(&served);
    assert_eq!(texts(other.prepared("select 4", &[])), ["4"]);
    other.ask("set statement_timeout = 50").unwrap();
    cancelled(other.ask(HEAVY));
    cancelled(other.prepared(HEAVY, &[]));
}

#[test]
fn a_server_that_is_stopped_ends_its_connections() {
    let served = served();
    let (mut idle, mut busy) = (Client::of(&served), Client::of(&served));
    busy.begin(HEAVY);
    assert_eq!(texts(idle.ask("select 1")), ["1"]);
    drop(served.listening);
    for client in [&mut idle, &mut busy] {
        assert_eq!(client.socket.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}

/// A table without end that counts its batches; whoever reads it holds `alive`.
#[derive(Debug)]
struct Endless {
    schema: SchemaRef,
    alive: Arc<AtomicUsize>,
}

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let numbers = Arc::new(Int64Array::from_iter_values(0..1_000));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![numbers]).unwrap();
        let batches = stream::repeat_with({
            let alive = Arc::clone(&self.alive);
            move || {
                alive.fetch_add(1, Ordering::Relaxed);
                Ok(batch.clone())
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

fn endless(served: &Served) -> Arc<AtomicUsize> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let alive = Arc::new(AtomicUsize::new(0));
    let part = Arc::new(Endless { schema: Arc::clone(&schema), alive: Arc::clone(&alive) });
    let table = StreamingTable::try_new(schema, vec![part]).unwrap();
    served.context.register_table("endless", Arc::new(table)).unwrap();
    alive
}

#[test]
fn an_endless_answer_waits_for_its_reader_and_ends_with_it() {
    let served = served();
    let batches = endless(&served);
    let readers = || Arc::strong_count(&batches) - 2;
    let mut client = Client::of(&served);
    client.begin("select n from endless");
    while client.next().is_some_and(|(tag, _)| tag != b'D') {}
    assert_eq!(readers(), 1);
    // Who does not read stops it: what the system buffers for a connection has an end.
    eventually("the server waits", || {
        let before = batches.load(Ordering::Relaxed);
        sleep(Duration::from_secs(1));
        batches.load(Ordering::Relaxed) == before
    });
    client.cancel(&served);
    cancelled(client.answer());
    eventually("a cancelled statement stops", || readers() == 0);
    client.begin("select n from endless");
    while client.next().is_some_and(|(tag, _)| tag != b'D') {}
    drop(client);
    eventually("a statement of one who left stops", || readers() == 0);
    // A sum gives nothing to write, by which it would be seen that nobody reads.
    let mut client = Client::of(&served);
    client.begin("select sum(n) from endless where n < 0 limit 1");
    eventually("it is at work", || readers() == 1);
    drop(client);
    eventually("a statement without rows of one who left stops", || readers() == 0);
    assert_eq!(texts(Client::of(&served).ask("select 1")), ["1"]);
}

#[test]
fn answers_that_wait_for_their_reader_are_few() {
    let served = served();
    let batches = endless(&served);
    let mut client = Client::of(&served);
    for portal in 0..8 {
        assert_eq!(texts(client.open(&format!("p{portal}"), "select n from endless")), ["0"]);
    }
    assert_eq!(client.open("more", "select n from endless").unwrap_err().code(), "53300");
    client.send(b'C', b"Pp0\0");
    client.send(b'S', b"");
    client.answer().unwrap();
    assert_eq!(texts(client.open("more", "select n from endless")), ["0"]);
    drop(client);
    eventually("all of them end with their connection", || Arc::strong_count(&batches) == 2);
}

#[test]
fn more_clients_than_there_is_room_for_are_told() {
    let served = served();
    let mut clients: Vec<Client> = (0..super::super::CLIENTS).map(|_| Client::of(&served)).collect();
    let refused = Client::try_of(&served).err().unwrap();
    assert_eq!((refused.field('S'), refused.code()), (Some("FATAL"), "53300"));
    // Nobody is too many to cancel.
    clients[0].begin(HEAVY);
    clients[0].cancel(&served);
    cancelled(clients[0].answer());
    clients.pop();
    eventually("a place is free", || Client::try_of(&served).is_ok());
}

#[test]
fn connections_come_and_go() {
    let served = served();
    for number in 0..200 {
        match number % 4 {
            0 => drop(served.connect()),
            1 => served.connect().write_all(&greeting()).unwrap(),
            2 => Client::of(&served).begin("select 1"),
            _ => assert_eq!(texts(Client::of(&served).ask("select 1")), ["1"]),
        }
    }
    assert_eq!(texts(Client::of(&served).ask("select 2")), ["2"]);
}

/// Says something and waits until the server hangs up; the last of what it answered.
fn said(served: &Served, bytes: &[u8]) -> Vec<u8> {
    let mut socket = served.connect();
    let mut answer = Vec::new();
    // The server may have hung up before all of it was said.
    socket.write_all(bytes).ok();
    socket.shutdown(Shutdown::Write).ok();
    socket.read_to_end(&mut answer).ok();
    answer
}

#[test]
fn what_is_no_message_ends_its_connection_alone() {
    let served = served();
    let mut bystander = Client::of(&served);
    let (tls, gss) = (request(80_877_103, b""), request(80_877_104, b""));
    let greeted = |bytes: &[u8]| [&greeting(), bytes].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // The beginning of TLS without asking for it.
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        vec![0; 64],
        vec![0xff; 64],
        i32::MAX.to_be_bytes().to_vec(),
        i32::MIN.to_be_bytes().to_vec(),
        request(0, b""),
        request(131_072, b""),
        request(262_144, b""),
        [&tls[..], b"anything"].concat(),
        [&tls[..], &gss, &tls, &gss].concat(),
        // Without its end, and with more than it.
        [&[0, 0, 0, 20, 0, 3, 0, 0][..], b"user\0me\0abcd"].concat(),
        [&[0, 0, 0, 20, 0, 3, 0, 0][..], b"user\0me\0\0abc"].concat(),
        // Half of it.
        greeting()[..20].to_vec(),
        greeted(&message(b'Q', b"select 1\0")[..7]),
        greeted(&[b'Q', 0x7f, 0xff, 0xff, 0xff, b's']),
        greeted(&[b'Q', 0xff, 0xff, 0xff, 0xff, b's']),
        greeted(&[b'Q', 0, 0, 0, 0]),
        greeted(&message(b'Q', b"")),
        greeted(&message(b'Q', b"select '\xff\xfe'\0")),
        greeted(&message(b'!', b"what")),
        greeted(&message(b'P', b"")),
        greeted(&message(b'P', b"\0select 1\0\x7f\xff")),
        greeted(&message(b'B', b"\0\0\x7f\xff\x7f\xff\xff\xff")),
        greeted(&message(b'B', b"nobody\0nothing\0\0\0\0\0\0\0")),
        greeted(&message(b'D', b"?\0")),
        greeted(&message(b'E', b"nobody\0\xff\xff\xff\xff")),
        greeted(&message(b'd', b"rows")),
        greeted(&greeting()),
    ] {
        said(&served, &bytes);
        assert_eq!(texts(bystander.ask("select 1")), ["1"], "{bytes:?}");
    }
    // A message that does not end is not read to its end.
    let length = 0x3000_0000_i32.to_be_bytes();
    let mut client = Client::of(&served);
    client.socket.write_all(&[&b"Q"[..], &length].concat()).unwrap();
    let block = vec![b' '; 1 << 20];
    let taken = (0..256).take_while(|_| client.socket.write_all(&block).is_ok()).count();
    assert!(taken < 64, "{taken} MiB of one message were read");
    let refused = client.answer().unwrap_err();
    assert_eq!((refused.field('S'), refused.code()), (Some("FATAL"), "58030"), "{refused:?}");
    assert_eq!(texts(bystander.ask("select 1")), ["1"]);
}

#[test]
fn conversations_with_slips_harm_nobody() {
    let served = served();
    let mut bystander = Client::of(&served);
    let bind = [&b"\0\0\0\0\0\x01\0\0\0\x01"[..], b"2", b"\0\0"].concat();
    let conversation = [
        greeting(),
        message(b'P', b"\0select name, vector from music where n = $1\0\0\0"),
        message(b'D', b"S\0"),
        message(b'B', &bind),
        message(b'E', b"\0\0\0\0\x01"),
        message(b'S', b""),
        message(b'Q', b"select n, vector from music\0"),
        message(b'X', b""),
    ]
    .concat();
    assert!(said(&served, &conversation).windows(6).any(|part| part == b"anthem"));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..150 {
        let mut bytes = conversation.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        said(&served, &bytes);
    }
    assert_eq!(texts(bystander.ask("select 1")), ["1"]);
}
