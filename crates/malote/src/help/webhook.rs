//! Webhooks: what `malote server webhook` says of itself.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "All that were taken"
    "Todas que foram aceitas";
    "All whose tries are used up"
    "Todas cujas tentativas se esgotaram";
    "Be told of every environment of the tenant"
    "Ser avisado de todos os ambientes do tenant";
    "Change name, address, events, description or environment; what waits goes to the new address"
    "Altera nome, endereço, eventos, descrição ou ambiente; o que aguarda vai para o novo endereço";
    "Deliveries of a webhook, the newest first"
    "Entregas de um webhook, da mais nova à mais antiga";
    "EVENT"
    "EVENTO";
    "EVENTS"
    "EVENTOS";
    "Have the running server tell a test, once, and wait for the outcome"
    "Faz o servidor em execução enviar um teste, uma vez, e espera o resultado";
    "Hold deliveries back; events are noted meanwhile, and wait"
    "Retém as entregas; os eventos são anotados enquanto isso, e aguardam";
    "Hours for which the secret of before signs as well"
    "Horas durante as quais o secret anterior também assina";
    "KEEP_HOURS"
    "HORAS";
    "Let deliveries go out again, those that waited among them"
    "Libera as entregas de novo, inclusive as que aguardavam";
    "Make a webhook; its secret is shown now and never again"
    "Cria um webhook; o secret é mostrado agora e nunca mais";
    "Make another secret; for a while each call is signed by both"
    "Cria outro secret; por um tempo cada chamada é assinada pelos dois";
    "One webhook"
    "Um webhook";
    "One, by the event's id"
    "Uma, pelo id do evento";
    "Only this one, by the event's id, with the body that is sent"
    "Só esta, pelo id do evento, com o corpo que é enviado";
    "Only those of an event"
    "Só as de um evento";
    "Only those that are ready, leased, done or dead"
    "Só as que estão ready, leased, done ou dead";
    "Only what happened then or later: 2027-01-31 or 2027-01-31T12:00:00Z"
    "Só o que aconteceu nesse momento ou depois: 2027-01-31 ou 2027-01-31T12:00:00Z";
    "Put the secret of before out of force at once"
    "Tira o secret anterior de vigor imediatamente";
    "Remove a webhook with its deliveries, those that wait among them"
    "Remove um webhook com suas entregas, inclusive as que aguardam";
    "Seconds to wait"
    "Segundos de espera";
    "Tell again what has ended, with all tries before it"
    "Avisa de novo o que já terminou, com todas as tentativas pela frente";
    "Tell how many they are, and change nothing"
    "Diz quantas são, e não muda nada";
    "The one environment it is told of, by id or name"
    "O único ambiente de que ele é avisado, por id ou nome";
    "The one environment it is told of, by id or name; left out: every one of the tenant"
    "O único ambiente de que ele é avisado, por id ou nome; se omitido, todos os do tenant";
    "WAIT"
    "ESPERA";
    "Webhook, by id or name; may be left out where there is one"
    "Webhook, por id ou nome; pode ser omitido onde só houver um";
    "Webhooks of a tenant; never their secrets"
    "Webhooks de um tenant; nunca os secrets";
    "What is told: batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved"
    "O que é avisado: batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved";
    "Where consumers are told of batches, and how each telling stands"
    "Onde os consumidores são avisados dos pacotes, e como está cada aviso";
    "Where the consumer listens: https://…; - reads it from standard input"
    "Onde o consumidor escuta: https://…; - lê da entrada padrão";
    "an address that holds a key"
    "um endereço que contém uma chave";
};
