//! Care: what doctor, backup, restore and copy-store say of themselves; agent and server say it in the same words.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "A store in a database (store.url) is backed up with the database's own tools, such as pg_dump."
    "Um armazenamento em um banco (store.url) tem o backup feito com as ferramentas do próprio banco, como pg_dump.";
    "Agents find out by themselves and read again what the backup lacks."
    "Os agentes percebem sozinhos e leem de novo o que falta no backup.";
    "Check the backup and tell what would be done, and do nothing"
    "Confere o backup e diz o que seria feito, sem fazer nada";
    "Configuration of an agent or a server, as the process reads it; variables of the environment count as well"
    "Configuração de um agente ou de um servidor, como o processo a lê; as variáveis de ambiente também valem";
    "Copy store and staging into a folder, beside a running server"
    "Copia o armazenamento e a staging para uma pasta, com o servidor em execução";
    "Copy the journal into a folder, beside a running agent. Rows need no backup: the ERP and the server hold them"
    "Copia o diário para uma pasta, com o agente em execução. As linhas não precisam de backup: o ERP e o servidor as têm";
    "Copy the keys of sealed secrets and of hashed columns as well"
    "Copia também as chaves dos segredos selados e das colunas com hash";
    "Copy the master key as well"
    "Copia também a chave mestra";
    "Copy the store of the data folder into the database of store.url; stop the server first"
    "Copia o armazenamento da pasta de dados para o banco de store.url; pare o servidor antes";
    "Folder of the backup; empty or not there yet"
    "Pasta do backup; vazia ou ainda inexistente";
    "Folder of the backup; left out: go on with a restore that was cut off"
    "Pasta do backup; se omitida, continua uma restauração que foi interrompida";
    "Longest time for each call over the network, and for each look at a table"
    "Tempo máximo de cada chamada pela rede e de cada consulta a uma tabela";
    "Look over what an agent or a server stands on, and say what has to be mended"
    "Examina o que um agente ou um servidor precisa para funcionar e diz o que corrigir";
    "Nothing of that day is sent: the agent asks the server what is staged and reads again what is missing."
    "Nada daquele dia é enviado: o agente pergunta ao servidor o que está na staging e lê de novo o que falta.";
    "One JSON object on stdout, in both languages"
    "Um objeto JSON em stdout, nos dois idiomas";
    "Put a backup in the place of the journal; stop the agent first"
    "Coloca um backup no lugar do diário; pare o agente antes";
    "Put a backup in the place of what the data folder holds; stop the server first"
    "Coloca um backup no lugar do que a pasta de dados tem; pare o servidor antes";
    "Put aside what the data folder holds"
    "Põe de lado o que a pasta de dados tem";
    "SECONDS"
    "SEGUNDOS";
    "Staged tables are not copied: the server makes them again from the messages whose bodies are still kept, and orders from the agents, once more and whole, the tables for which retention has removed bodies."
    "As tabelas da staging não são copiadas: o servidor as refaz com as mensagens cujo conteúdo ainda está guardado e pede aos agentes, de novo e inteiras, as tabelas cujo conteúdo a retenção já removeu.";
    "TOPICS"
    "TEMAS";
    "Tell what would be copied, and change nothing"
    "Diz o que seria copiado, sem mudar nada";
    "The file store.sqlite stays as it is; put it away afterwards. The server goes on in the database with the same master.key."
    "O arquivo store.sqlite fica como está; guarde-o em outro lugar depois. O servidor continua no banco com a mesma master.key.";
    "The master key is not copied: keep it apart from the backups, for who has both can open every secret of the store. A backup whose key is lost cannot be restored."
    "A chave mestra não é copiada: guarde-a longe dos backups, pois quem tem os dois abre todos os segredos do armazenamento. Um backup cuja chave se perdeu não pode ser restaurado.";
    "Topics to look at, as the first word of each line names them; left out: all"
    "Temas a examinar, como a primeira palavra de cada linha os chama; se omitidos, todos";
    "What a backup keeps is history, incidents, pauses and sealed secrets. The keys are not copied unless asked for."
    "O backup guarda histórico, ocorrências, pausas e segredos selados. As chaves só são copiadas se isso for pedido.";
    "Whether the file is an agent's or a server's is read from its keys. It runs beside a running process and without one. Exit code 0: nothing has to be mended; 4: something has to be."
    "Pelas chaves do arquivo se sabe se ele é de um agente ou de um servidor. Funciona com o processo em execução e sem ele. Código de saída 0: nada a corrigir; 4: há o que corrigir.";
    "goes on with one that was cut off"
    "continua uma que foi interrompida";
    "makes the tables in the new database"
    "cria as tabelas no banco novo";
};
