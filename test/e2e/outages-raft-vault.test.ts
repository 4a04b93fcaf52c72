/** A cluster of three nodes of Vault fails and comes back: see `test/support/raft-outages.ts`. */
import { testRaftOutages } from '../support/raft-outages.ts';

testRaftOutages('Vault');
