// A phone in Kotlin: pairs with a computer, answers its commands, keeps keys and asks its owner in Kotlin.
//
// Run by test.sh, which builds the library, generates its Kotlin and compiles both for a plain JVM: no Android, no Gradle.

import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.PosixFilePermissions
import java.security.KeyPair
import java.security.KeyPairGenerator
import java.security.MessageDigest
import java.security.SecureRandom
import java.security.Signature
import java.security.interfaces.ECPublicKey
import java.security.spec.ECGenParameterSpec
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.Executors
import javax.crypto.Cipher
import javax.crypto.spec.GCMParameterSpec
import javax.crypto.spec.SecretKeySpec
import kotlin.system.exitProcess
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.TimeoutCancellationException
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeout
import uniffi.pocketcard_ffi.*

const val LIMIT_MS = 10_000L
val HEX = java.util.HexFormat.of()
val SELECT: ByteArray = HEX.parseHex("00A4040009A0000003080000100000")
val VERIFY: ByteArray = HEX.parseHex("0020008008313233343536FFFF")
/** Key 9A, P-256, PIN once, touch always: every use is asked of the owner. */
val GENERATE: ByteArray = HEX.parseHex("0047009A0BAC09800111AA0102AB010200")
val DIGEST: ByteArray = MessageDigest.getInstance("SHA-256").digest("what is signed".toByteArray())
val SIGN: ByteArray = HEX.parseHex("0087119A267C2482008120") + DIGEST + byteArrayOf(0)

/** Keys of Java; `trouble` is thrown instead of signing, and `late` is waited for before, whatever is cancelled. */
class Keys : KeyStore {
    val keys = ConcurrentHashMap<String, KeyPair>()
    @Volatile var used = 0
    @Volatile var trouble: Exception? = null
    @Volatile var late: CompletableDeferred<Unit>? = null
    val waiting = CompletableDeferred<Unit>()

    override fun algorithms() = listOf(KeyAlgorithm.ECC_P256)

    override suspend fun generate(algorithm: KeyAlgorithm): GeneratedKey {
        check(algorithm == KeyAlgorithm.ECC_P256)
        val generator = KeyPairGenerator.getInstance("EC")
        generator.initialize(ECGenParameterSpec("secp256r1"))
        val pair = generator.generateKeyPair()
        val handle = ByteArray(16).also { SecureRandom().nextBytes(it) }
        keys[HEX.formatHex(handle)] = pair
        val point = (pair.public as ECPublicKey).w
        fun field(number: java.math.BigInteger) = ByteArray(32).also { field ->
            val octets = number.toByteArray().dropWhile { it == 0.toByte() }.toByteArray()
            octets.copyInto(field, 32 - octets.size)
        }
        return GeneratedKey(handle, PublicKey.Ecc(byteArrayOf(4) + field(point.affineX) + field(point.affineY)))
    }

    override suspend fun sign(handle: ByteArray, algorithm: KeyAlgorithm, input: ByteArray): ByteArray {
        delay(1)
        trouble?.let { throw it }
        late?.let {
            waiting.complete(Unit)
            withContext(NonCancellable) { it.await() }
        }
        val pair = keys[HEX.formatHex(handle)] ?: throw KeyStoreException.UnknownKey()
        used += 1
        return Signature.getInstance("NONEwithECDSA").run {
            initSign(pair.private)
            update(input)
            sign()
        }
    }

    override suspend fun decrypt(handle: ByteArray, algorithm: KeyAlgorithm, input: ByteArray): ByteArray =
        throw KeyStoreException.UnsupportedAlgorithm()

    override suspend fun agree(handle: ByteArray, algorithm: KeyAlgorithm, peerPoint: ByteArray): ByteArray =
        throw KeyStoreException.UnsupportedAlgorithm()

    override suspend fun delete(handle: ByteArray) {
        keys.remove(HEX.formatHex(handle))
    }

    override suspend fun handles(): List<ByteArray> = keys.keys.map { HEX.parseHex(it) }
}

/** Seals as Android's Keystore does, with a key in memory. */
class DeviceKey : SealingKey {
    @Volatile var key = ByteArray(32).also { SecureRandom().nextBytes(it) }

    override suspend fun seal(context: ByteArray, plain: ByteArray): ByteArray {
        val nonce = ByteArray(12).also { SecureRandom().nextBytes(it) }
        return nonce + cipher(Cipher.ENCRYPT_MODE, context, nonce).doFinal(plain)
    }

    override suspend fun unseal(context: ByteArray, sealed: ByteArray): ByteArray = try {
        cipher(Cipher.DECRYPT_MODE, context, sealed.copyOf(12)).doFinal(sealed, 12, sealed.size - 12)
    } catch (_: java.security.GeneralSecurityException) {
        throw SealingException.Rejected()
    }

    private fun cipher(mode: Int, context: ByteArray, nonce: ByteArray) = Cipher.getInstance("AES/GCM/NoPadding").apply {
        init(mode, SecretKeySpec(key, "AES"), GCMParameterSpec(128, nonce))
        updateAAD(context)
    }
}

/** Decides as the test says. */
class Owner : Approver {
    val asked = CopyOnWriteArrayList<ApprovalRequest>()
    val waiting = CompletableDeferred<Unit>()
    val cancelled = CompletableDeferred<Unit>()
    @Volatile var decide: suspend () -> ApprovalDecision = { ApprovalDecision.APPROVED }

    override suspend fun approve(request: ApprovalRequest): ApprovalDecision {
        asked.add(request)
        return decide()
    }

    val entries = CopyOnWriteArrayList<PinRequest>()
    @Volatile var pin: suspend () -> PinAnswer = { PinAnswer.Unanswered }
    @Volatile var check: (suspend () -> OwnerDecision)? = null

    override suspend fun enterPin(request: PinRequest): PinAnswer {
        entries.add(request)
        return pin()
    }

    override fun hasOwnerVerification(): Boolean = check != null

    override suspend fun verifyOwner(check: OwnerCheck): OwnerDecision = this.check!!()

    suspend fun <T> waitForever(): T {
        waiting.complete(Unit)
        try {
            return CompletableDeferred<T>().await()
        } catch (cancellation: CancellationException) {
            cancelled.complete(Unit)
            throw cancellation
        }
    }
}

class Fixture : AutoCloseable {
    val folder: Path = Files.createTempDirectory(
        "pocketcard-kotlin",
        PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")),
    )
    val keys = Keys()
    val device = DeviceKey()
    val owner = Owner()
    val host = TestHost("Kotlin's computer")
    lateinit var phone: Phone
    lateinit var events: Events
    lateinit var link: Link
    @Volatile var wire: Wire? = null
    private val seen = Channel<TestHostEvent>(Channel.UNLIMITED)
    /** The computer lives on one thread; the phone's thread only hands messages over. */
    private val desk = Executors.newSingleThreadExecutor()

    inner class Wire : Transport {
        val closed = CompletableDeferred<Unit>()
        @Volatile var fails = false

        override fun send(message: ByteArray): SendOutcome {
            check(!fails) { "the radio caught fire" }
            desk.execute {
                if (wire === this) {
                    host.receive(message)
                    flush()
                }
            }
            return SendOutcome.SENT
        }

        override fun disconnect() {
            closed.complete(Unit)
        }
    }

    suspend fun start(folder: Path = this.folder, testCard: Boolean = true) {
        val settings = PhoneSettings("Kotlin's phone", "test 1", folder.toString(), testCard)
        phone = Phone.start(settings, keys, device, owner)
        events = phone.events()
    }

    fun connect() = onDesk {
        wire = Wire()
        link = phone.linkUp(wire!!)
        flush()
    }

    fun <T> onDesk(work: () -> T): T = desk.submit(work).get()

    private fun flush() {
        while (true) seen.trySend(host.nextEvent() ?: break)
        while (true) {
            val message = host.nextMessage() ?: break
            try {
                link.tryPushMessage(message)
            } catch (_: LinkException.Closed) {
                break
            }
        }
    }

    suspend inline fun <reified T : TestHostEvent> hostEvent(): T {
        while (true) (nextSeen() as? T)?.let { return it }
    }

    suspend fun nextSeen() = seen.receive()

    suspend inline fun <reified T : PhoneEvent> phoneEvent(): T {
        while (true) ((events.next() ?: error("the phone has stopped")) as? T)?.let { return it }
    }

    suspend fun pair(): String {
        val text = host.offer()
        connect()
        same("Kotlin's computer", phone.scan(text))
        val shown = hostEvent<TestHostEvent.Digits>()
        val digits = phoneEvent<PhoneEvent.PairingDigits>()
        same(shown.digits, digits.digits)
        same("Kotlin's computer" to "Kotlin's phone", digits.hostName to shown.phoneName)
        check(Regex("\\d{6}").matches(digits.digits))
        phone.confirmPairing(true)
        onDesk {
            host.confirm(true)
            flush()
        }
        hostEvent<TestHostEvent.PairingDone>()
        return phoneEvent<PhoneEvent.Paired>().hostId
    }

    suspend fun open() {
        host.connect()
        connect()
        same(0x3B, hostEvent<TestHostEvent.Opened>().atr[0].toInt())
    }

    fun send(command: ByteArray) = onDesk { host.transmit(command).also { flush() } }

    fun askForPin() = onDesk { host.enterPin().also { flush() } }

    fun reset() = onDesk {
        host.reset()
        flush()
    }

    suspend fun transmit(command: ByteArray): ByteArray {
        val request = send(command)
        while (true) {
            val answer = hostEvent<TestHostEvent.Response>()
            if (answer.requestId == request) return answer.response
        }
    }

    fun entered(pin: String): PinAnswer = PinAnswer.Entered(pin, null)

    /** Has the owner enter the PIN, and gives the status word. */
    suspend fun enterPin(): String {
        val request = askForPin()
        while (true) {
            val answer = hostEvent<TestHostEvent.Response>()
            if (answer.requestId == request) return HEX.formatHex(answer.response)
        }
    }

    suspend fun withKey(): String {
        val hostId = pair()
        ok(phone.localTransmit(GENERATE))
        open()
        ok(transmit(SELECT))
        ok(transmit(VERIFY))
        return hostId
    }

    suspend fun signs() {
        val answer = transmit(SIGN)
        ok(answer)
        same(0x7C to 0x82, (answer[0].toInt() and 0xFF) to (answer[2].toInt() and 0xFF))
        val verifier = Signature.getInstance("NONEwithECDSA")
        verifier.initVerify(keys.keys.values.single().public)
        verifier.update(DIGEST)
        check(verifier.verify(answer, 4, answer.size - 6)) { "the signature is wrong" }
    }

    suspend fun refuses(status: String) = same(status, HEX.formatHex(transmit(SIGN)))

    override fun close() {
        runBlocking { phone.stop() }
        desk.shutdownNow()
        folder.toFile().deleteRecursively()
    }
}

fun <T> same(expected: T, actual: T) = check(expected == actual) { "expected $expected, not $actual" }

fun ok(response: ByteArray) = same("9000", HEX.formatHex(response).takeLast(4))

suspend inline fun <reified E : Throwable> throws(crossinline action: suspend () -> Any?) {
    try {
        action()
    } catch (error: Throwable) {
        check(error is E) { "threw $error" }
        return
    }
    error("did not throw ${E::class}")
}

val TESTS: Map<String, suspend Fixture.() -> Unit> = mapOf(
    "pairs and answers" to {
        val hostId = pair()
        open()
        same(hostId, phoneEvent<PhoneEvent.Connected>().hostId)
        check(link.isAuthenticated())
        ok(transmit(SELECT))
        same("6d00", HEX.formatHex(transmit(byteArrayOf(0, 0xEE.toByte(), 0, 0))))
        same(listOf(Triple(hostId, "Kotlin's computer", true)), phone.hosts().map { Triple(it.id, it.name, it.connected) })
        phone.rename(hostId, "Desk")
        same("Desk", phone.hosts().single().name)
    },
    "signs with a key in Kotlin if the owner agrees" to {
        val hostId = withKey()
        signs()
        val request = owner.asked.single()
        same(listOf(hostId, "Kotlin's computer", 0x9A.toUByte(), ApprovalPurpose.SIGN),
            listOf(request.hostId, request.hostName, request.key, request.purpose))
        owner.decide = { ApprovalDecision.DENIED }
        refuses("6982")
        same(1, keys.used)
        owner.decide = { ApprovalDecision.APPROVED }
        refuses("6982")
        same(2, owner.asked.size)
        phone.ownerPresent()
        signs()
    },
    "errors of Kotlin are answers of the card" to {
        withKey()
        val troubles = listOf(
            KeyStoreException.Refused() to "6985",
            KeyStoreException.Unusable() to "6984",
            RuntimeException("a bug in the app") to "6f00",
        )
        for ((trouble, status) in troubles) {
            keys.trouble = trouble
            refuses(status)
        }
        keys.trouble = null
        signs()
        owner.decide = { throw RuntimeException("a bug in the app") }
        refuses("6985")
        // What was just refused is not asked again, unless the owner has come.
        phone.ownerPresent()
        owner.decide = { throw ApproverException.Failed() }
        refuses("6985")
        phone.ownerPresent()
        owner.decide = { ApprovalDecision.APPROVED }
        signs()
    },
    "a reset takes the question back" to {
        withKey()
        owner.decide = { owner.waitForever() }
        send(SIGN)
        owner.waiting.await()
        reset()
        owner.cancelled.await()
        phoneEvent<PhoneEvent.CommandCancelled>()
        owner.decide = { ApprovalDecision.APPROVED }
        same("6982", HEX.formatHex(transmit(SIGN)))
        same(0, keys.used)
        ok(transmit(VERIFY))
        signs()
    },
    "the PIN is entered in Kotlin" to {
        val hostId = pair()
        open()
        owner.pin = { entered("123456") }
        same("9000", enterPin())
        val request = owner.entries.single()
        same(Triple(hostId, PinPurpose.VERIFY, 3.toUByte()), Triple(request.hostId, request.purpose, request.triesLeft))
        val table = listOf<Pair<suspend () -> PinAnswer, String>>(
            suspend { entered("999999") } to "63c2",
            suspend { entered("12345a") } to "6403",
            suspend { PinAnswer.Unanswered } to "6400",
            suspend { throw RuntimeException("a bug in the app") } to "6400",
            suspend { throw ApproverException.Failed() } to "6400",
            suspend { PinAnswer.Cancelled } to "6401",
            suspend { entered("123456") } to "9000",
        )
        for ((answer, status) in table) {
            owner.pin = answer
            same(status, enterPin())
        }
    },
    "a reset takes the entry of the PIN back" to {
        pair()
        open()
        owner.pin = { owner.waitForever() }
        askForPin()
        owner.waiting.await()
        reset()
        owner.cancelled.await()
        phoneEvent<PhoneEvent.CommandCancelled>()
        same("63c3", HEX.formatHex(transmit(VERIFY.copyOf(4))))
    },
    "a PIN that is entered late is nobody's" to {
        pair()
        open()
        val late = CompletableDeferred<PinAnswer>()
        owner.pin = {
            owner.waiting.complete(Unit)
            withContext(NonCancellable) { late.await() }
        }
        askForPin()
        owner.waiting.await()
        reset()
        phoneEvent<PhoneEvent.CommandCancelled>()
        late.complete(entered("999999"))
        same("63c3", HEX.formatHex(transmit(VERIFY.copyOf(4))))
        owner.pin = { entered("123456") }
        same("9000", enterPin())
    },
    "Kotlin knows its owner" to {
        phone.stop()
        owner.check = { OwnerDecision.MATCHED }
        start()
        pair()
        open()
        val verify = HEX.parseHex("00200096020300")
        for ((decide, status) in listOf<Pair<suspend () -> OwnerDecision, String>>(
            suspend { throw RuntimeException("a bug in the app") } to "6985",
            suspend { OwnerDecision.UNAVAILABLE } to "6985",
            suspend { OwnerDecision.MATCHED } to "9000",
        )) {
            owner.check = decide
            same(status, HEX.formatHex(transmit(verify)).takeLast(4))
        }
    },
    "permissions are taken back and given again" to {
        val hostId = withKey()
        val everything = phone.hosts().single().permissions
        owner.decide = { owner.waitForever() }
        val request = send(SIGN)
        owner.waiting.await()
        val taken = Permissions(byteArrayOf(0x9C.toByte()), false, false, true)
        phone.setPermissions(hostId, taken)
        val refused = hostEvent<TestHostEvent.Refused>()
        same(request to "KEY_NOT_PERMITTED", refused.requestId to refused.reason)
        owner.cancelled.await()
        same("6982", HEX.formatHex(hostEvent<TestHostEvent.Response>().response))
        same("6982", HEX.formatHex(transmit(VERIFY)))
        same(0, keys.used)
        phone.setPermissions(hostId, everything)
        owner.decide = { ApprovalDecision.APPROVED }
        ok(transmit(VERIFY))
        signs()
        throws<PhoneException.UnknownKey> { phone.setPermissions(hostId, Permissions(byteArrayOf(1), true, true, true)) }
    },
    "the owner confirms a connection" to {
        val hostId = pair()
        phone.setPermissions(hostId, phone.hosts().single().permissions.copy(connectUnattended = false))
        owner.decide = { throw RuntimeException("a bug in the app") }
        open()
        check(phoneEvent<PhoneEvent.ConnectionDecided>().refused)
        same(ApprovalPurpose.CONNECT, owner.asked.last().purpose)
        same("6985", HEX.formatHex(transmit(VERIFY)))
        phone.allowConnection(hostId)
        ok(transmit(VERIFY))
    },
    "an owner enrols the phone and reads the log" to {
        phone.stop()
        val other = Files.createTempDirectory(folder, "owned")
        start(other, testCard = false)
        val names = CertificateNames("Ann", null, "ann@EXAMPLE.ORG", null)
        val key = NewKey(Slot.AUTHENTICATION, KeyAlgorithm.ECC_P256, null, null)
        throws<EnrolmentException.PinBlocked> { phone.makeKeys("246810", listOf(key), names) }
        phone.choosePin("246810", "87654321")
        throws<EnrolmentException.WrongPin> { phone.makeKeys("999999", listOf(key), names) }
        throws<EnrolmentException.Name> { phone.makeKeys("246810", listOf(key), names.copy(commonName = " ")) }
        phone.makeKeys("246810", listOf(key), names)
        same(KeyStage.STARTED, phoneEvent<PhoneEvent.KeyProgress>().stage)
        same(KeyStage.DONE, phoneEvent<PhoneEvent.KeyProgress>().stage)
        val certificate = phone.slots().first().certificate!!
        val parsed = java.security.cert.CertificateFactory.getInstance("X.509")
            .generateCertificate(certificate.inputStream()) as java.security.cert.X509Certificate
        parsed.verify(parsed.publicKey)
        same("CN=Ann", parsed.subjectX500Principal.name)
        check(phone.requestCertificate("246810", Slot.AUTHENTICATION, names).pem.contains("CERTIFICATE REQUEST"))
        phone.importCertificate(Slot.AUTHENTICATION, certificate)
        throws<EnrolmentException.NotACertificate> { phone.importCertificate(Slot.AUTHENTICATION, byteArrayOf(1)) }
        throws<PhoneException.WrongPin> { phone.changePin("999999", "135790") }
        phone.changePin("246810", "135790")
        phone.changePuk("87654321", "12345678")
        phone.factoryReset()
        check(phone.slots().all { it.algorithm == null })
        // The key store is told when the card has forgotten them.
        while (keys.keys.isNotEmpty()) delay(1)
        val log = phone.log()
        same(listOf(Triple(null, 0x9A.toUByte(), "done")),
            log.filter { it.operation == "make_key" }.map { Triple(it.hostId, it.key, it.result) })
        check(log.any { it.operation == "verify_pin" && it.result == "wrong_pin" && it.triesLeft == 2.toUByte() })
    },
    "a signature that comes late is nobody's" to {
        withKey()
        val late = CompletableDeferred<Unit>()
        keys.late = late
        val first = send(SIGN)
        keys.waiting.await()
        reset()
        phoneEvent<PhoneEvent.CommandCancelled>()
        keys.late = null
        // The phone does not wait for it.
        ok(transmit(VERIFY))
        same(0, keys.used)
        late.complete(Unit)
        val second = send(SIGN)
        check(first != second)
        same(second, hostEvent<TestHostEvent.Response>().requestId)
        signs()
        // All were made, one was given to nobody. Its thread may be the last.
        while (keys.used < 3) delay(1)
        same(3, keys.used)
    },
    "a cancelled wait loses no event" to {
        repeat(20) { throws<TimeoutCancellationException> { withTimeout(5) { events.next() } } }
        phone.lock()
        check(phoneEvent<PhoneEvent.CardLocked>().locked)
        phone.unlock()
        check(!phoneEvent<PhoneEvent.CardLocked>().locked)
    },
    "errors are typed" to {
        throws<ScanException.Text> { phone.scan("https://example.org") }
        throws<PhoneException.UnknownHost> { phone.forget("00".repeat(32)) }
        throws<PhoneException.NoPairing> { phone.confirmPairing(true) }
        throws<PhoneException.NotACommand> { phone.localTransmit(byteArrayOf(0)) }
        throws<PhoneException.PinRefused> { phone.choosePin("123456789", "12345678") }
        throws<StartException.InUse> { Phone.start(PhoneSettings("x", "x", folder.toString(), true), keys, device, owner) }
        phone.stop()
        throws<PhoneException.Stopped> { phone.hosts() }
        throws<ScanException.Stopped> { phone.compare() }
        while (events.next() != null) Unit
    },
    "a forgotten host is cut off" to {
        val hostId = pair()
        open()
        phone.forget(hostId)
        wire!!.closed.await()
        hostEvent<TestHostEvent.Closed>()
        phoneEvent<PhoneEvent.Forgotten>()
        // The phone closes the transport first, and then lets the link go.
        while (!link.isClosed()) delay(1)
        throws<LinkException.Closed> { link.pushMessage(byteArrayOf(2)) }
    },
    "a transport that fails is a lost link" to {
        pair()
        open()
        phoneEvent<PhoneEvent.Connected>()
        wire!!.fails = true
        send(SELECT)
        phoneEvent<PhoneEvent.Disconnected>()
        open()
        ok(transmit(SELECT))
        link.linkDown()
        phoneEvent<PhoneEvent.Disconnected>()
    },
    "is the same phone after a restart" to {
        withKey()
        phone.stop()
        start()
        open()
        ok(transmit(SELECT))
        ok(transmit(VERIFY))
        signs()
        phone.stop()
        device.key = ByteArray(32)
        throws<StartException.Sealing> { start() }
    },
)

fun main(arguments: Array<String>) {
    var failures = 0
    for ((name, test) in TESTS.filterKeys { name -> arguments.all { it in name } }) {
        val error = Fixture().use { fixture ->
            runCatching {
                runBlocking {
                    withTimeout(LIMIT_MS) {
                        fixture.start()
                        fixture.test()
                    }
                }
            }.exceptionOrNull()
        }
        println("$name ... ${if (error == null) "ok" else "FAILED"}")
        error?.printStackTrace(System.out)
        failures += if (error == null) 0 else 1
    }
    println(if (failures == 0) "OK" else "FAILED: $failures")
    exitProcess(if (failures == 0) 0 else 1)
}
