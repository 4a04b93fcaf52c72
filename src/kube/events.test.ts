import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import type { Gvr } from '../api/gvr.ts';
import type { JsonObject } from '../api/json.ts';
import { silentLogger } from '../runtime/logger.ts';
import { FakeClock } from '../runtime/fake-clock.ts';
import type { KubeClient } from './client.ts';
import { KubeError } from './errors.ts';
import { createEventRecorder, truncateUtf8, type EventToRecord } from './events.ts';

const event: EventToRecord = {
  regarding: { apiVersion: 'istiovaultca.io/v1alpha1', kind: 'IstioVaultCA', name: 'ca', namespace: 'ns', uid: 'u' },
  type: 'Warning',
  reason: 'Sealed',
  action: 'Reconcile',
  note: 'Vault is sealed',
};

function setup() {
  const clock = new FakeClock(Date.UTC(2026, 0, 1));
  const created: JsonObject[] = [];
  const patched: { name: string; body: JsonObject }[] = [];
  const api = {
    create: jest.fn((body: JsonObject) => Promise.resolve(body)),
    patch: jest.fn(() => Promise.resolve({})),
  };
  const client: Pick<KubeClient, 'createObject' | 'patchObject'> = {
    createObject: (_gvr: Gvr, _namespace, body) => {
      created.push(body);
      return api.create(body);
    },
    patchObject: (_gvr: Gvr, _namespace, name: string, body: JsonObject | unknown[]) => {
      patched.push({ name, body: body as JsonObject });
      return api.patch();
    },
  };
  let suffix = 0;
  const onDropped = jest.fn();
  const recorder = createEventRecorder({
    client,
    clock,
    logger: silentLogger,
    reportingInstance: 'p'.repeat(200),
    onDropped,
    uniqueSuffix: () => String(++suffix),
  });
  return { clock, created, patched, api, recorder, onDropped };
}

describe('the event recorder', () => {
  test('makes an Event with everything the API server wants', async () => {
    const { recorder, created } = setup();
    recorder.record({ ...event, note: 'ä'.repeat(600) });
    await recorder.flush();
    expect(created).toEqual([
      {
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { name: 'ca.64748462040001', namespace: 'ns' },
        eventTime: '2026-01-01T00:00:00.000000Z',
        type: 'Warning',
        reason: 'Sealed',
        action: 'Reconcile',
        note: 'ä'.repeat(512),
        regarding: event.regarding,
        reportingController: 'istiovaultca.io/istio-vault-ca',
        reportingInstance: 'p'.repeat(128),
      },
    ]);
  });

  test('the same again becomes a series, written at most once a minute', async () => {
    const { recorder, created, patched, clock } = setup();
    for (let i = 0; i < 10; i++) {
      recorder.record(event);
      await recorder.flush();
      await clock.advance(15_000);
    }
    expect(created).toHaveLength(1);
    expect(patched.map(({ name, body }) => ({ name, ...body }))).toEqual([
      { name: 'ca.64748462040001', series: { count: 2, lastObservedTime: '2026-01-01T00:00:15.000000Z' } },
      { name: 'ca.64748462040001', series: { count: 6, lastObservedTime: '2026-01-01T00:01:15.000000Z' } },
      { name: 'ca.64748462040001', series: { count: 10, lastObservedTime: '2026-01-01T00:02:15.000000Z' } },
    ]);
  });

  test('another note, reason or object is another Event, and so is the same after ten quiet minutes', async () => {
    const { recorder, created, patched, clock } = setup();
    recorder.record(event);
    recorder.record({ ...event, note: 'other' });
    recorder.record({ ...event, reason: 'Standby' });
    recorder.record({ ...event, regarding: { ...event.regarding, uid: 'v' } });
    await recorder.flush();
    await clock.advance(600_001);
    recorder.record(event);
    await recorder.flush();
    expect(created).toHaveLength(5);
    expect(patched).toHaveLength(0);
  });

  test('an Event that the API server has dropped meanwhile is made anew', async () => {
    const { recorder, created, api } = setup();
    recorder.record(event);
    api.patch.mockRejectedValueOnce(new KubeError('gone', { kind: 'NotFound' }));
    recorder.record(event);
    await recorder.flush();
    expect(created).toHaveLength(2);
  });

  test('never throws, counts what it could not deliver, and goes on', async () => {
    const { recorder, api, onDropped, created } = setup();
    api.create.mockRejectedValueOnce(new KubeError('no', { kind: 'Forbidden' }));
    recorder.record(event);
    recorder.record({ ...event, note: 'x' });
    recorder.record({ ...event, note: undefined as unknown as string });
    await recorder.flush();
    expect(onDropped).toHaveBeenCalledTimes(2);
    expect(created).toHaveLength(2);
  });

  test('does not wait, and forgets what is beyond all measure', async () => {
    const { recorder, api, onDropped } = setup();
    let release: (body: JsonObject) => void = () => undefined;
    api.create.mockReturnValueOnce(new Promise((resolve) => (release = resolve)));
    for (let i = 0; i < 510; i++) recorder.record({ ...event, note: String(i) });
    expect(onDropped).toHaveBeenCalledTimes(10);
    await Promise.resolve();
    await Promise.resolve();
    release({});
    await recorder.flush();
    expect(api.create).toHaveBeenCalledTimes(500);
  });

  test('Events about cluster-scoped objects stand in default', async () => {
    const { recorder, created } = setup();
    recorder.record({ ...event, regarding: { apiVersion: 'v1', kind: 'Namespace', name: 'n' } });
    await recorder.flush();
    expect(created[0]?.['metadata']).toMatchObject({ namespace: 'default' });
  });
});

test('text is cut to bytes within no character', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.nat(50), (text, most) => {
      const cut = truncateUtf8(text, most);
      expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(most);
      expect(text.toWellFormed().startsWith(cut)).toBe(true);
      expect(most - Buffer.byteLength(cut) < 4 || cut === text.toWellFormed()).toBe(true);
    }),
  );
});
