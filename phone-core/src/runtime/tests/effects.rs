//! The owner's own commands, and a key store that takes its time.

use super::*;

/// How a generation ends.
enum End {
    Key,
    /// As foreign code may.
    Panic,
}

/// A key store whose generations end when and how the test says.
struct SlowKeys {
    gate: Receiver<End>,
    deleted: async_channel::Sender<KeyHandle>,
}

#[async_trait::async_trait]
impl KeyStore for SlowKeys {
    fn algorithms(&self) -> Vec<KeyAlgorithm> {
        vec![KeyAlgorithm::EccP256]
    }

    async fn generate(&self, _algorithm: KeyAlgorithm) -> Result<(KeyHandle, PublicKeyData), KeyStoreError> {
        match self.gate.recv().await.map_err(|_| KeyStoreError::Failed)? {
            End::Key => Ok((KeyHandle::new(vec![9]), PublicKeyData::Ecc { point: vec![4; 65] })),
            End::Panic => panic!("a bug of the platform"),
        }
    }

    async fn sign(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn decrypt(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn agree(&self, _: &KeyHandle, _: KeyAlgorithm, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        Err(KeyStoreError::UnknownKey)
    }

    async fn delete(&self, key: &KeyHandle) -> Result<(), KeyStoreError> {
        self.deleted.try_send(key.clone()).map_err(|_| KeyStoreError::Failed)
    }

    async fn handles(&self) -> Result<Vec<KeyHandle>, KeyStoreError> {
        Ok(vec![KeyHandle::new(vec![7])])
    }
}

#[test]
fn the_owners_commands_are_answered_and_hosts_can_be_renamed() {
    let mut world = World::new(&MemoryStore::new());
    let phone = world.phone.clone();
    let response = world.ask(phone.local_transmit(Command::parse(SELECT).unwrap())).unwrap();
    assert!(response.status().is_success());
    pair(&mut world, 1);
    let id = hosts(&mut world)[0].host;
    world.ask(phone.rename(id, "\u{202E}Laptop\n")).unwrap();
    assert_eq!(hosts(&mut world)[0].name, "Laptop");
    assert!(matches!(world.ask(phone.rename(id, "\u{202E}")), Err(PhoneError::EmptyName)));
    let stranger = HostId::new([3; 32]);
    assert!(matches!(world.ask(phone.rename(stranger, "x")), Err(PhoneError::UnknownHost)));
}

#[test]
fn a_key_that_is_ready_too_late_is_destroyed_and_orphans_are_swept() {
    let (open_gate, gate) = async_channel::bounded(1);
    let (deleted, destroyed) = async_channel::unbounded();
    let store = MemoryStore::new();
    let mut world = World::with_keys(&store, Some(Arc::new(SlowKeys { gate, deleted })));
    assert_eq!(destroyed.try_recv().unwrap(), KeyHandle::new(vec![7]), "no state names this key");

    let phone = world.phone.clone();
    let generate = Command::parse(&[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11]).unwrap();
    let mut answer = Box::pin(phone.local_transmit(generate));
    assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    world.run();
    phone.local_reset();
    world.run();
    open_gate.try_send(End::Key).unwrap();
    world.run();
    assert_eq!(destroyed.try_recv().unwrap(), KeyHandle::new(vec![9]));
    assert!(!world.ask(answer).unwrap().status().is_success());
}

#[test]
fn generations_that_nobody_waits_for_do_not_pile_up() {
    let (_gate, closed) = async_channel::bounded(1);
    let (deleted, _destroyed) = async_channel::unbounded();
    let mut world = World::with_keys(&MemoryStore::new(), Some(Arc::new(SlowKeys { gate: closed, deleted })));
    let phone = world.phone.clone();
    let generate = || Command::parse(&[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11]).unwrap();
    let begin = |world: &mut World| {
        let mut answer = Box::pin(phone.local_transmit(generate()));
        assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        world.run();
        answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    for _ in 0..8 {
        assert!(begin(&mut world).is_pending());
        phone.local_reset();
        world.run();
    }
    let Poll::Ready(Ok(answer)) = begin(&mut world) else { panic!("a ninth generation was begun") };
    assert_eq!(u16::from(answer.status()), 0x6F00);
}

#[test]
fn a_key_store_that_panics_costs_one_operation_and_not_the_phone() {
    let (open_gate, gate) = async_channel::bounded(1);
    let (deleted, _destroyed) = async_channel::unbounded();
    open_gate.try_send(End::Panic).unwrap();
    let mut world = World::with_keys(&MemoryStore::new(), Some(Arc::new(SlowKeys { gate, deleted })));
    let phone = world.phone.clone();
    let generate = Command::parse(&[0x00, 0x47, 0x00, 0x9A, 5, 0xAC, 3, 0x80, 1, 0x11]).unwrap();
    let answer = world.ask(phone.local_transmit(generate)).unwrap();
    assert_eq!(u16::from(answer.status()), 0x6F00);
    assert!(world.ask(phone.local_transmit(Command::parse(SELECT).unwrap())).unwrap().status().is_success());
}
